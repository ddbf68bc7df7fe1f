//! `runt mcp`: notebooks for agents.

use std::process::ExitCode;

use runtimed_client::Client;

use crate::cli::{McpOptions, VERSION};
use crate::interrupt::Interrupt;

/// Serves MCP until the agent closes stdin, or somebody asks this program to end.
pub(crate) async fn serve(options: McpOptions) -> anyhow::Result<ExitCode> {
    let mut interrupt = Interrupt::listen()?;
    let client = options.socket.map_or_else(Client::discover, Client::new);
    let mut asked = None;
    let ended = async { asked = Some(interrupt.asked().await) };
    runtimed_mcp::serve(client, VERSION.to_owned(), ended).await?;
    Ok(asked.map_or(ExitCode::SUCCESS, |asked| ExitCode::from(asked.exit_code())))
}
