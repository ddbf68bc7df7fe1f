//! The reference of all commands as Markdown, from the same words as `--help`.
//!
//! For: docs/CLI_REFERENCE.md, which a test compares.
//! Promises: pure; the same for the same commands. Hidden commands and options are left out.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// Above everything else.
const HEAD: &str = "# Commands of runt

Written by `runt man --markdown` from what `--help` says; a test compares. [CLI.md](CLI.md) says what they promise.
";

/// Every command below `root`, and itself.
pub(crate) fn markdown(mut root: Command) -> String {
    root.build();
    let mut text = HEAD.to_owned();
    text += "\nOf all commands:\n\n";
    options(&root, true, &mut text);
    shown(&root).for_each(|command| describe(command, "runt", &mut text));
    text
}

fn describe(command: &Command, parent: &str, text: &mut String) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    // A String never refuses.
    let _ = write!(text, "\n## {name}\n\n{about}.");
    let aliases: Vec<_> = command.get_visible_aliases().map(|alias| format!("`{parent} {alias}`")).collect();
    if !aliases.is_empty() {
        let _ = write!(text, " Also {}.", aliases.join(", "));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim().trim_start_matches("Usage:").trim().replace("\n       ", "\n");
    let _ = write!(text, "\n\n```\n{usage}\n```\n");
    let mut own = String::new();
    options(command, false, &mut own);
    if !own.is_empty() {
        let _ = write!(text, "\n{own}");
    }
    shown(command).for_each(|it| describe(it, &name, text));
}

/// The commands below one that are for everybody.
fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help")
}

/// A line for each argument; of those that all commands have, or of the others.
fn options(command: &Command, global: bool, text: &mut String) {
    let shown = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help" && arg.is_global_set() == global;
    for arg in command.get_arguments().filter(shown) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = write!(text, "* `{}`", arg.to_string().replace("...", ""));
        if let Some(short) = arg.get_short() {
            let _ = write!(text, ", `-{short}`");
        }
        let _ = write!(text, ": {help}");
        let takes_value = arg.get_action().takes_values();
        let choices = arg.get_possible_values();
        if takes_value && !choices.is_empty() {
            let choices: Vec<_> = choices.iter().map(|choice| format!("`{}`", choice.get_name())).collect();
            let _ = write!(text, ". One of {}", choices.join(", "));
        }
        let defaults: Vec<_> = arg.get_default_values().iter().map(|it| it.to_string_lossy()).collect();
        if takes_value && !defaults.is_empty() {
            let _ = write!(text, ". `{}` if not given", defaults.join(" "));
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_reference_in_the_documentation_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CLI_REFERENCE.md");
        let now = markdown(Cli::command().version(None).disable_version_flag(true));
        assert!(
            std::fs::read_to_string(path).unwrap() == now,
            "the commands are others now: `cargo run -p runt -- man --markdown > docs/CLI_REFERENCE.md`"
        );
    }

    #[test]
    fn every_command_and_option_says_what_it_is() {
        fn check(command: &Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some() || name == "runt", "{name}");
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some() || command.is_hide_set(), "{name} {}", arg.get_id());
            }
            command.get_subcommands().filter(|it| it.get_name() != "help").for_each(check);
        }
        Cli::command().debug_assert();
        check(&Cli::command());
    }
}
