//! The bridge as commands of a Tauri plugin.
//!
//! Promises: one command for each function of [`Bridge`], of the same name; what a window is told comes through the
//! channel it gave, frames as raw bytes. What a page had open ends with the page.

use std::sync::Arc;

use runtimed_client::Client;
use runtimed_client::protocol::pool::PoolRequest;
use serde_json::{Map, Value, json};
use tauri::ipc::{Channel, InvokeBody, InvokeResponseBody, Request};
use tauri::plugin::{Builder, TauriPlugin};
use tauri::webview::PageLoadEvent;
use tauri::{Manager, RunEvent, Runtime, State, Webview, WindowEvent};
use uuid::Uuid;

use crate::bridge::{Bridge, Notebook, Opened, Told};

/// The header that names the session of a frame.
const SESSION: &str = "runtimed-session";

/// The plugin, for `tauri::Builder::plugin`. It finds the daemon as `runt` does.
#[must_use]
pub fn init<R: Runtime>() -> TauriPlugin<R> {
    Builder::new("runtimed")
        .invoke_handler(tauri::generate_handler![open, send, request, ask, close])
        .setup(|app, _| {
            app.manage(Arc::new(Bridge::new(Client::discover())));
            Ok(())
        })
        .on_page_load(|webview, payload| {
            if payload.event() == PageLoadEvent::Started {
                webview.state::<Arc<Bridge>>().close_all(webview.label());
            }
        })
        .on_event(|app, event| {
            if let RunEvent::WindowEvent { label, event: WindowEvent::Destroyed, .. } = event {
                app.state::<Arc<Bridge>>().close_all(label);
            }
        })
        .build()
}

/// `invoke("plugin:runtimed|open", { notebook: { path: "/a.ipynb" }, operator: "desktop:main", frames: channel })`.
/// The channel gets an ArrayBuffer for each frame, and `{ closed: reason }` at the end.
#[tauri::command]
async fn open<R: Runtime>(
    webview: Webview<R>,
    bridge: State<'_, Arc<Bridge>>,
    notebook: Notebook,
    operator: Option<String>,
    frames: Channel<InvokeResponseBody>,
) -> Result<Opened, String> {
    let tell = move |told| {
        let message = match told {
            Told::Frame(bytes) => InvokeResponseBody::Raw(bytes),
            Told::Closed(why) => InvokeResponseBody::Json(json!({ "closed": why }).to_string()),
        };
        // A window that is gone needs no frames; its session ends with `close` or the application.
        let _ = frames.send(message);
    };
    bridge.open(webview.label(), notebook, operator, Box::new(tell)).await
}

/// `invoke("plugin:runtimed|send", bytes, { headers: { "runtimed-session": session } })`.
#[tauri::command]
async fn send(bridge: State<'_, Arc<Bridge>>, request: Request<'_>) -> Result<(), String> {
    let InvokeBody::Raw(frame) = request.body() else { return Err("a frame must be sent as bytes".into()) };
    let session = request.headers().get(SESSION).and_then(|session| session.to_str().ok());
    let session = session.and_then(|session| session.parse::<Uuid>().ok());
    bridge.send(session.ok_or(format!("the header `{SESSION}` names no session"))?, frame).await
}

/// `invoke("plugin:runtimed|request", { session, request: { action: "interrupt_execution" } })`.
#[tauri::command]
async fn request(
    bridge: State<'_, Arc<Bridge>>,
    session: Uuid,
    request: Map<String, Value>,
) -> Result<Value, String> {
    bridge.request(session, request).await
}

/// `invoke("plugin:runtimed|ask", { request: { type: "list_rooms" } })`.
#[tauri::command]
async fn ask(bridge: State<'_, Arc<Bridge>>, request: PoolRequest) -> Result<Value, String> {
    bridge.ask(request).await
}

/// `invoke("plugin:runtimed|close", { session })`.
#[tauri::command]
async fn close(bridge: State<'_, Arc<Bridge>>, session: Uuid) -> Result<(), String> {
    bridge.close(session).await;
    Ok(())
}
