//! Commands as they were called once.
//!
//! For: scripts that are older than this program. None of these is in a help text.
//! Promises: pure; what is not an old spelling stays as it is.

use crate::notebook_name::notebook;

/// The old words, and what they are now.
const OLD: &[(&[&str], &[&str])] = &[
    (&["start"], &["jupyter", "start"]),
    (&["interrupt"], &["jupyter", "interrupt"]),
    (&["exec"], &["jupyter", "exec"]),
    (&["console"], &["jupyter", "console"]),
    (&["clean"], &["jupyter", "clean"]),
    (&["rooms"], &["notebooks"]),
    (&["pool", "ping"], &["daemon", "ping"]),
    (&["pool", "status"], &["daemon", "status"]),
    (&["pool", "info"], &["daemon", "status"]),
    (&["pool", "flush"], &["daemon", "flush"]),
    (&["pool", "shutdown"], &["daemon", "shutdown"]),
];

/// The arguments, program's name first, in today's words, and a warning if they were others.
pub(crate) fn of_today(arguments: Vec<String>) -> (Vec<String>, Option<String>) {
    // Options of all commands may stand in front.
    let Some(at) = arguments.iter().skip(1).position(|it| !it.starts_with('-')).map(|at| at + 1) else {
        return (arguments, None);
    };
    let words = &arguments[at..];
    let found =
        OLD.iter().find(|(old, _)| words.len() >= old.len() && words.iter().zip(*old).all(|(a, b)| a == b));
    let (old, new): (&[&str], &[&str]) = match found {
        Some(found) => *found,
        None if stops_a_kernel(words) => (&["stop"], &["jupyter", "stop"]),
        None => return (arguments, None),
    };
    let warning =
        format!("Warning: 'runt {}' is deprecated. Use 'runt {}' instead.", old.join(" "), new.join(" "));
    let mut today = arguments;
    today.splice(at..at + old.len(), new.iter().map(|word| (*word).to_owned()));
    (today, Some(warning))
}

/// `runt stop` with a kernel's name. With a notebook's it is a command of today.
fn stops_a_kernel(words: &[String]) -> bool {
    let Some(("stop", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
        return false;
    };
    let named = rest.iter().find(|word| !word.starts_with('-'));
    rest.iter().any(|word| word == "--all") || named.is_some_and(|word| notebook(word).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today(line: &str) -> (String, Option<String>) {
        let (today, warning) = of_today(line.split(' ').map(str::to_owned).collect());
        (today.join(" "), warning)
    }

    #[test]
    fn old_words_become_those_of_today_with_a_warning() {
        let (line, warning) = today("runt --quiet pool flush");
        assert_eq!(line, "runt --quiet daemon flush");
        assert_eq!(
            warning.unwrap(),
            "Warning: 'runt pool flush' is deprecated. Use 'runt daemon flush' instead."
        );
        assert_eq!(today("runt start python3 --name x").0, "runt jupyter start python3 --name x");
        assert_eq!(today("runt rooms --json").0, "runt notebooks --json");
    }

    #[test]
    fn stop_means_a_notebook_unless_it_cannot() {
        for line in ["runt stop brave-otter", "runt stop --all"] {
            assert_eq!(today(line).0, line.replace("stop", "jupyter stop"));
        }
        for line in
            ["runt stop", "runt stop a.ipynb", "runt stop 639b6fa5-4a2c-4c3e-9d7f-0123456789ab --json"]
        {
            assert_eq!(today(line), (line.to_owned(), None));
        }
        for line in ["runt", "runt --help", "runt ps", "runt daemon start", "runt pool"] {
            assert_eq!(today(line), (line.to_owned(), None));
        }
    }
}
