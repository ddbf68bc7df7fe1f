//! The command that starts an installed kernel, and the variables it gets.
//!
//! Promises: placeholders as jupyter_client fills them; a bare `python` is the one the kernelspec was installed with.

use std::collections::BTreeMap;

use crate::spec::KernelSpec;
use crate::template::{braces, dollars};

/// Placeholder for the path of the connection file.
pub const CONNECTION_FILE: &str = "{connection_file}";

impl KernelSpec {
    /// Program and arguments, with `connection_file` in place of [`CONNECTION_FILE`]. Pass that itself to fill it in
    /// later.
    pub fn command(&self, connection_file: &str) -> Vec<String> {
        let prefix = self.prefix.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        let value = |name: &str| match name {
            "connection_file" => Some(connection_file.to_owned()),
            "resource_dir" => Some(self.folder.to_string_lossy().into_owned()),
            "prefix" => prefix.clone(),
            _ => None,
        };
        let mut argv: Vec<String> = self.argv.iter().map(|part| braces(part, value)).collect();
        if let (Some(program), Some(prefix)) = (argv.first_mut(), &self.prefix)
            && matches!(program.as_str(), "python" | "python3")
        {
            let own = prefix.join("bin").join(program.as_str());
            if let (true, Some(own)) = (own.is_file(), own.to_str()) {
                *program = own.to_owned();
            }
        }
        argv
    }

    /// Variables to set on top of those that `inherited` gives by name.
    pub fn variables(&self, inherited: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
        self.env.iter().map(|(name, value)| (name.clone(), dollars(value, &inherited))).collect()
    }
}
