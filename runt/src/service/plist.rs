//! The text of the launchd agent.
//!
//! Promises: pure; compiled and tested everywhere, read by macOS only.

use super::Layout;
use super::launchd::LABEL;

/// `io.runtimed.plist`.
pub(super) fn agent(layout: &Layout) -> String {
    let string = |text: &str| format!("<string>{}</string>", escaped(text));
    let mut arguments = vec![layout.binary().display().to_string(), "run".to_owned()];
    if layout.other_socket {
        arguments.extend(["--socket".to_owned(), layout.socket.display().to_string()]);
    }
    let arguments: String = arguments.iter().map(|argument| format!("    {}\n", string(argument))).collect();
    let environment: String = layout
        .environment
        .iter()
        .map(|(name, value)| format!("    <key>{}</key>\n    {}\n", escaped(name), string(value)))
        .collect();
    // Started again after a crash only: one that finds another daemon there ends well, and shall not come back.
    // AbandonProcessGroup lets kernels outlive it. It writes a log of its own, so its output goes nowhere.
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  {label}
  <key>ProgramArguments</key>
  <array>
{arguments}  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>Crashed</key>
    <true/>
  </dict>
  <key>AbandonProcessGroup</key>
  <true/>
  <key>ExitTimeOut</key>
  <integer>60</integer>
  <key>EnvironmentVariables</key>
  <dict>
{environment}  </dict>
</dict>
</plist>
"#,
        label = string(LABEL),
    )
}

/// Whether an agent runs the program that is installed here.
pub(super) fn is_ours(agent: &str, layout: &Layout) -> bool {
    agent.contains(&format!("<string>{}</string>", escaped(&layout.binary().display().to_string())))
}

/// The part of a written agent that decides where its daemon listens.
pub(super) fn places(agent: &str) -> Option<&str> {
    Some(agent.split_once("<string>run</string>")?.1.split_once("</array>")?.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_of_a_home_with_odd_letters() {
        let layout = Layout {
            data: "/Users/ana/Library/Application Support/runt".into(),
            definitions: "/Users/ana/Library/LaunchAgents".into(),
            socket: "/tmp/a & b.sock".into(),
            other_socket: true,
            worktree: None,
            environment: vec![("HOME".into(), "/Users/<ana>".into())],
        };
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>io.runtimed</string>
  <key>ProgramArguments</key>
  <array>
    <string>/Users/ana/Library/Application Support/runt/bin/runtimed</string>
    <string>run</string>
    <string>--socket</string>
    <string>/tmp/a &amp; b.sock</string>
  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>Crashed</key>
    <true/>
  </dict>
  <key>AbandonProcessGroup</key>
  <true/>
  <key>ExitTimeOut</key>
  <integer>60</integer>
  <key>EnvironmentVariables</key>
  <dict>
    <key>HOME</key>
    <string>/Users/&lt;ana&gt;</string>
  </dict>
</dict>
</plist>
"#;
        assert_eq!(agent(&layout), expected);
        assert!(is_ours(expected, &layout) && !is_ours("<string>/opt/x/runtimed</string>", &layout));
        assert_eq!(
            places(expected).map(str::trim),
            Some("<string>--socket</string>\n    <string>/tmp/a &amp; b.sock</string>")
        );
    }
}
