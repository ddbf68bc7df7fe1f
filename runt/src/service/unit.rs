//! The text of the systemd units.
//!
//! Promises: pure; paths with blanks, quotes and percent signs stay what they are.

use std::path::Path;

use super::Layout;

/// First words of what is written here, and of nothing else.
const OURS: &str = "# Written by 'runt daemon install'";

/// Whether a unit was written here.
pub(super) fn is_ours(unit: &str) -> bool {
    unit.starts_with(OURS)
}

/// Where a written `runtimed.socket` listens.
pub(super) fn listens_at(socket: &str) -> Option<String> {
    socket.lines().find_map(|line| Some(line.strip_prefix("ListenStream=")?.replace("%%", "%")))
}

/// The lines of a written `runtimed.service` that decide where its daemon listens.
pub(super) fn places(service: &str) -> Vec<&str> {
    let decides = |line: &&str| {
        ["Environment=\"HOME=", "Environment=\"XDG_CACHE_HOME="].iter().any(|start| line.starts_with(start))
    };
    let options = service.lines().find_map(|line| line.strip_prefix("ExecStart=")?.split_once("\" run"));
    service.lines().filter(decides).chain(options.map(|(_, options)| options)).collect()
}

/// `runtimed.service`.
pub(super) fn service(layout: &Layout) -> String {
    let mut command = quoted(&layout.binary().display().to_string()) + " run";
    if layout.other_socket {
        command += &format!(" --socket {}", quoted(&layout.socket.display().to_string()).replace('$', "$$"));
    }
    let environment: String = layout
        .environment
        .iter()
        .map(|(name, value)| format!("Environment={}\n", quoted(&format!("{name}={value}"))))
        .collect();
    format!(
        "# Written by 'runt daemon install'; 'runt daemon doctor --fix' writes it again.
[Unit]
Description=runtimed - Jupyter Runtime Daemon

[Service]
Type=notify
ExecStart={command}
Restart=on-failure
RestartSec=1
# Kernels are processes of this unit. They outlive the daemon, and one that takes too much memory does not end it.
KillMode=process
OOMPolicy=continue
# A daemon that does not move for a minute is started again. Its kernels go on.
WatchdogSec=60
WatchdogSignal=SIGKILL
# It saves notebooks first, for at most 45 s.
TimeoutStopSec=60
{environment}
[Install]
WantedBy=default.target
Also=runtimed.socket
"
    )
}

/// `runtimed.socket`: clients that come before the daemon is there wait in its queue.
pub(super) fn socket(path: &Path) -> String {
    // One path to the end of the line: blanks need no quotes, and quotes would be part of it.
    let path = path.display().to_string().replace('%', "%%");
    format!(
        "# Written by 'runt daemon install'; 'runt daemon doctor --fix' writes it again.
[Unit]
Description=Socket of runtimed

[Socket]
ListenStream={path}
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"
    )
}

/// In quotes, without a meaning for systemd.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_of_a_plain_home() {
        let layout = Layout {
            data: "/home/ana/.local/share/runt".into(),
            definitions: "/home/ana/.config/systemd/user".into(),
            socket: "/home/ana/.cache/runt/runtimed.sock".into(),
            other_socket: false,
            worktree: None,
            environment: vec![
                ("HOME".into(), "/home/ana".into()),
                ("PATH".into(), "/home/ana/.local/bin:/usr/local/bin:/usr/bin:/bin".into()),
            ],
        };
        let expected = r#"# Written by 'runt daemon install'; 'runt daemon doctor --fix' writes it again.
[Unit]
Description=runtimed - Jupyter Runtime Daemon

[Service]
Type=notify
ExecStart="/home/ana/.local/share/runt/bin/runtimed" run
Restart=on-failure
RestartSec=1
# Kernels are processes of this unit. They outlive the daemon, and one that takes too much memory does not end it.
KillMode=process
OOMPolicy=continue
# A daemon that does not move for a minute is started again. Its kernels go on.
WatchdogSec=60
WatchdogSignal=SIGKILL
# It saves notebooks first, for at most 45 s.
TimeoutStopSec=60
Environment="HOME=/home/ana"
Environment="PATH=/home/ana/.local/bin:/usr/local/bin:/usr/bin:/bin"

[Install]
WantedBy=default.target
Also=runtimed.socket
"#;
        assert_eq!(service(&layout), expected);
        let expected = "# Written by 'runt daemon install'; 'runt daemon doctor --fix' writes it again.
[Unit]
Description=Socket of runtimed

[Socket]
ListenStream=/home/ana/.cache/runt/runtimed.sock
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
";
        assert_eq!(socket(&layout.socket), expected);
    }

    #[test]
    fn odd_paths_stay_what_they_are() {
        let layout = Layout {
            data: "/home/a b/50%/\"runt\"".into(),
            definitions: "/d".into(),
            socket: "/s p/50%/$HOME.sock".into(),
            other_socket: true,
            worktree: None,
            environment: vec![("HOME".into(), r"/home/a b\c".into())],
        };
        let service = service(&layout);
        let line = |start| service.lines().find(|line| line.starts_with(start)).unwrap();
        assert_eq!(
            line("ExecStart="),
            r#"ExecStart="/home/a b/50%%/\"runt\"/bin/runtimed" run --socket "/s p/50%%/$$HOME.sock""#
        );
        assert_eq!(line("Environment="), r#"Environment="HOME=/home/a b\\c""#);
        let socket = socket(&layout.socket);
        assert!(socket.contains("\nListenStream=/s p/50%%/$HOME.sock\n"));
        assert_eq!(listens_at(&socket).map(Into::into), Some(layout.socket));
        assert!(is_ours(&socket) && is_ours(&service) && !is_ours("[Unit]\n"));
        assert_eq!(
            places(&service),
            [r#"Environment="HOME=/home/a b\\c""#, r#" --socket "/s p/50%%/$$HOME.sock""#]
        );
    }
}
