//! What a notebook's script block (PEP 723) declares.
//!
//! For: `labels.rs` and `trust.rs`.
//! Promises: pure; a notebook has one block or none.
//! Never: decides whether the block counts.

use runtimed_plugin_api::{EnvProviderInfo, EnvRequest, PluginError, Result, ScriptBlock};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A block, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Script {
    /// Where its cell is in the notebook; 1 is the first.
    pub(super) cell: usize,
    /// Requirement specifiers, as written.
    pub(super) dependencies: Vec<String>,
    /// Python constraint.
    requires_python: Option<String>,
    /// The tables of `[tool]`: what is meant for one package manager.
    tool: Map<String, Value>,
}

/// The block as TOML has it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Block {
    #[serde(default)]
    dependencies: Vec<String>,
    requires_python: Option<String>,
    #[serde(default)]
    tool: Map<String, Value>,
}

impl Script {
    /// The block among `blocks`.
    ///
    /// # Errors
    /// `Invalid` when there are several, or it is not TOML of that shape.
    pub(super) fn read(blocks: &[ScriptBlock]) -> Result<Option<Self>> {
        let (cell, text) = match blocks {
            [] => return Ok(None),
            [ScriptBlock { cell, text }] => (*cell, text),
            [first, second, ..] => {
                let help = format!(
                    "There is one in cell {} and one in cell {}. Put everything into one of them; nothing was installed.",
                    first.cell, second.cell
                );
                return Err(invalid(
                    "multiple # /// script blocks found (PEP 723 requires exactly one)",
                    &help,
                ));
            }
        };
        let Block { dependencies, requires_python, tool } = toml::from_str(text).map_err(|error| {
            let problem = format!("invalid TOML in script block: {}", error.to_string().trim_end());
            invalid(&problem, &format!("Correct the block in cell {cell}; nothing was installed."))
        })?;
        Ok(Some(Self { cell, dependencies, requires_python, tool }))
    }

    /// A block that names `package` and nothing else.
    pub(super) fn naming(package: &str) -> Self {
        Self { dependencies: vec![package.to_owned()], ..Self::default() }
    }

    /// What it says to the provider of `kind` beside packages.
    pub(super) fn beside(&self, kind: &str) -> EnvRequest {
        let options = self.tool.get(kind).and_then(Value::as_object).cloned().unwrap_or_default();
        let python = self.requires_python.as_deref().map(str::trim).filter(|python| !python.is_empty());
        EnvRequest { python: python.map(str::to_owned), options, ..EnvRequest::default() }
    }

    /// The request it stands for where the provider of `info` installs, without that one's own packages.
    pub(super) fn request(&self, info: &EnvProviderInfo) -> EnvRequest {
        let mut request = self.beside(&info.kind);
        match &info.script_packages {
            Some(list) => drop(request.options.insert(list.clone(), json!(self.dependencies))),
            None => request.packages.clone_from(&self.dependencies),
        }
        request
    }
}

fn invalid(problem: &str, help: &str) -> PluginError {
    PluginError::invalid(format!("Invalid PEP 723 metadata in notebook: {problem}"))
        .help(help)
        .detail(json!({ "error_reason": "environment_prepare_failed" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cell: usize, text: &str) -> ScriptBlock {
        ScriptBlock { cell, text: text.to_owned() }
    }

    #[test]
    fn a_block_is_a_request() {
        let text =
            "requires-python = \" >=3.11 \"\ndependencies = [\"six\"]\n[tool.uv]\nprerelease = \"allow\"";
        let script = Script::read(&[block(3, text)]).unwrap().unwrap();
        let info = |kind: &str| EnvProviderInfo { kind: kind.to_owned(), ..EnvProviderInfo::default() };
        let request = script.request(&info("uv"));
        assert_eq!((script.cell, request.python.as_deref()), (3, Some(">=3.11")));
        assert_eq!(request.packages, ["six"]);
        assert_eq!(request.options["prerelease"], "allow");
        assert!(script.request(&info("venv")).options.is_empty());
        let elsewhere = EnvProviderInfo { script_packages: Some("of_index".to_owned()), ..info("pixi") };
        let request = script.request(&elsewhere);
        assert_eq!((request.packages, &request.options["of_index"]), (vec![], &json!(["six"])));
        assert_eq!(Script::read(&[]).unwrap(), None);
    }

    #[test]
    fn what_is_wrong_with_a_block_is_said_with_its_cell() {
        let twice = Script::read(&[block(1, ""), block(4, "")]).unwrap_err();
        assert!(twice.message.starts_with("Invalid PEP 723 metadata in notebook: multiple # /// script"));
        assert!(twice.help.unwrap().contains("cell 4"));
        for text in ["dependencies = [", "dependencies = \"six\""] {
            let broken = Script::read(&[block(2, text)]).unwrap_err();
            assert!(broken.message.contains("invalid TOML in script block: "), "{broken}");
            assert_eq!(broken.detail["error_reason"], "environment_prepare_failed");
        }
    }
}
