//! Makes a permission for each command, as Tauri wants it.

fn main() {
    #[cfg(feature = "tauri")]
    tauri_plugin::Builder::new(&["open", "send", "request", "ask", "close"]).build();
}
