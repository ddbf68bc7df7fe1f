//! `runt inspect`: what the daemon has of a notebook that is open, or kept.
//!
//! For: looking into a notebook without joining it.
//! Never: changes or joins the notebook, or starts a kernel.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use runtimed_client::protocol::documents::Output;
use runtimed_client::protocol::documents::output::ContentRef;
use runtimed_client::{Client, ClientError};
use serde_json::{Map, Value};

use crate::notebook_name::notebook;
use crate::render::CellPrinter;
use crate::terminal;

/// Prints the notebook that `name` means; with `full_outputs`, outputs as `runt run` prints them.
pub(crate) async fn inspect(name: &str, full_outputs: bool, json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::discover();
    let named = notebook(name).unwrap_or_else(|| name.to_owned());
    let mut state = match client.inspect_notebook(&named).await {
        Ok(state) => state,
        Err(ClientError::Daemon(refusal)) => bail!(
            "{refusal}\n'runt notebooks' shows which are open, 'runt recover --list' what is kept of others."
        ),
        Err(error) => {
            bail!("Failed to inspect notebook: {error}\nIs the daemon running? Try 'runt daemon status'")
        }
    };
    if json {
        if full_outputs {
            fill_in(&client, &mut state).await?;
        }
        terminal::print_json(&state)?;
    } else {
        print(&client, &named, &state, full_outputs).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn print(
    client: &Client,
    name: &str,
    state: &Map<String, Value>,
    full_outputs: bool,
) -> anyhow::Result<()> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let cells = state.get("cells").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    anstream::println!("{}", terminal::title(&terminal::tilde(Path::new(name))));
    match state.get("kernel_info").filter(|kernel| !kernel.is_null()) {
        Some(kernel) => anstream::println!(
            "Kernel: {}, {}, environment {}",
            text(kernel, "kernel_type"),
            text(kernel, "status"),
            text(kernel, "env_source")
        ),
        None => anstream::println!("Kernel: none"),
    }
    anstream::println!("Cells:  {}", cells.len());
    for cell in cells {
        let count = text(cell, "execution_count");
        let count = if count == "null" { String::new() } else { format!(" [{count}]") };
        anstream::println!("\n{} {}{count}", text(cell, "cell_type"), text(cell, "id"));
        for line in text(cell, "source").lines() {
            anstream::println!("  {line}");
        }
        let outputs = outputs_of(state, cell);
        if full_outputs && !outputs.is_empty() {
            let blobs = client.blobs().await?;
            let mut printer = CellPrinter::default();
            printer.update(&outputs, &blobs).await?;
            printer.settle(&outputs, &blobs).await?;
            printer.finish()?;
        } else {
            outputs.iter().for_each(|output| anstream::println!("  => {}", in_a_line(output)));
        }
    }
    Ok(())
}

fn outputs_of(state: &Map<String, Value>, cell: &Value) -> Vec<Output> {
    let id = cell.get("id").and_then(Value::as_str).unwrap_or_default();
    let manifests = state.get("outputs_by_cell").and_then(|all| all.get(id)).and_then(Value::as_array);
    manifests.into_iter().flatten().filter_map(Output::from_json).collect()
}

/// What an output is, and how it begins.
fn in_a_line(output: &Output) -> String {
    let begins = |content: &ContentRef| match content {
        ContentRef::Inline { inline } => {
            let mut lines = inline.lines();
            let more = if lines.by_ref().nth(1).is_some() { " ..." } else { "" };
            format!("{}{more}", inline.lines().next().unwrap_or_default())
        }
        ContentRef::Blob { size, .. } => format!("({size} bytes)"),
    };
    match output {
        Output::Stream { name, text, .. } => format!("{name}: {}", begins(text)),
        Output::Error { ename, evalue, .. } => {
            format!("error: {ename}: {}", evalue.lines().next().unwrap_or_default())
        }
        Output::Display { bundle, .. } | Output::ExecuteResult { bundle, .. } => {
            let kinds = bundle.data.keys().cloned().collect::<Vec<_>>().join(", ");
            match bundle.data.get("text/plain") {
                Some(plain) => format!("{kinds}: {}", begins(plain)),
                None => kinds,
            }
        }
    }
}

/// Puts the text of blobs in their place. What is no text stays a reference.
async fn fill_in(client: &Client, state: &mut Map<String, Value>) -> anyhow::Result<()> {
    let mut rest: Vec<&mut Value> = state.get_mut("outputs_by_cell").into_iter().collect();
    let mut blobs = None;
    while let Some(value) = rest.pop() {
        match value {
            Value::Object(object) if object.contains_key("blob") => {
                let reader = match &blobs {
                    Some(reader) => reader,
                    None => blobs.insert(client.blobs().await?),
                };
                let hash = object.get("blob").and_then(Value::as_str).unwrap_or_default();
                if let Ok(text) = String::from_utf8(reader.read(hash).await?) {
                    object.insert("inline".to_owned(), text.into());
                }
            }
            Value::Object(object) => rest.extend(object.values_mut()),
            Value::Array(items) => rest.extend(items),
            _ => {}
        }
    }
    Ok(())
}
