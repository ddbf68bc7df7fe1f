//! Everything that can be judged without running the product.

use anyhow::Result;

use crate::{third_party, tidy, workspace};

/// Formatting, lock files, clippy with warnings denied, rustdoc with warnings denied, tidy.
pub(crate) fn run() -> Result<()> {
    workspace::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    third_party::format()?;
    third_party::locks()?;
    tidy::run()?;
    workspace::run(workspace::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ]))?;
    workspace::run(
        workspace::cargo()
            .args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"])
            // A map of a module may name its private parts.
            .env("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private_intra_doc_links"),
    )
}
