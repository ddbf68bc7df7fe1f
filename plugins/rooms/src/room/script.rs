//! Script blocks (PEP 723) in a notebook's code cells.
//!
//! For: telling the host what a notebook declares.
//! Promises: pure; a block that is not closed is none, as the PEP has it.
//! Never: reads the TOML in a block; the host does.

use runtimed_plugin_api::ScriptBlock;
use runtimed_protocol::documents::NotebookDoc;

/// What a block begins with.
const START: &str = "# /// script";
/// What a block ends with.
const END: &str = "# ///";

/// Every block in the code cells of `notebook`, in order.
pub(crate) fn blocks(notebook: &NotebookDoc) -> Vec<ScriptBlock> {
    let sources = notebook.code_sources().into_iter();
    sources
        .flat_map(|(cell, source)| in_source(&source).into_iter().map(move |text| ScriptBlock { cell, text }))
        .collect()
}

/// The blocks in the source of one cell.
fn in_source(source: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    // Almost every cell, without looking at its lines.
    if !source.contains(START) {
        return blocks;
    }
    let mut open: Option<Vec<&str>> = None;
    for line in source.lines().map(str::trim_end) {
        open = match (open.take(), line) {
            (None, START) => Some(Vec::new()),
            (None, _) => None,
            (Some(lines), END) => {
                blocks.push(lines.join("\n"));
                None
            }
            (Some(mut lines), "#") => {
                lines.push("");
                Some(lines)
            }
            (Some(mut lines), line) => line.strip_prefix("# ").map(|content| {
                lines.push(content);
                lines
            }),
        };
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_what_stands_between_its_marks() {
        let block =
            "# /// script  \n# dependencies = [\n#   \"six\",\n# ]\n#\n# requires-python = \">=3.11\"\n# ///";
        let text = "dependencies = [\n  \"six\",\n]\n\nrequires-python = \">=3.11\"";
        assert_eq!(in_source(&format!("import os\n{block}\nprint(1)")), [text]);
        assert_eq!(in_source(&format!("{block}\n{block}")).len(), 2);
        for none in [
            "x = 1",
            "# /// script\n# dependencies = []",
            "# /// script\n# a = 1\nimport os\n# ///",
            "# /// other\n# a = 1\n# ///",
            "    # /// script\n    # a = 1\n    # ///",
            "#/// script\n# a = 1\n# ///",
        ] {
            assert!(in_source(none).is_empty(), "{none}");
        }
    }
}
