//! `runt notebooks`: which notebooks are open.

use std::path::Path;
use std::process::ExitCode;

use runtimed_client::Client;
use runtimed_client::protocol::pool::{RoomRow, RoomState};

use crate::terminal;

/// Prints the open notebooks.
pub(crate) async fn list(json: bool) -> anyhow::Result<ExitCode> {
    let list = match Client::discover().list_rooms().await {
        Ok(list) => list,
        Err(error) => {
            anstream::eprintln!(
                "Failed to list notebooks: {error}\nIs the daemon running? Try 'runt daemon status'"
            );
            return Ok(ExitCode::FAILURE);
        }
    };
    if json {
        terminal::print_json(&list.rooms)?;
    } else if list.rooms.is_empty() {
        anstream::println!("No open notebooks.");
    } else {
        let header = ["NOTEBOOK", "PATH", "STATE", "KERNEL", "ENV", "STATUS", "PEERS"];
        anstream::println!("{}", terminal::table(&header, list.rooms.iter().map(row)));
    }
    if let Some(left_out) = list.truncated {
        anstream::eprintln!("{left_out} more notebooks without kernel and windows are not shown.");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(room: &RoomRow) -> Vec<String> {
    let path = room.notebook_path.as_deref().map(|path| terminal::tilde(Path::new(path)));
    let state = match room.state {
        RoomState::Active => "active",
        RoomState::Idle => "idle",
        RoomState::Inactive => "inactive",
    };
    vec![
        room.notebook_id.clone(),
        path.unwrap_or_else(|| "(untitled)".to_owned()),
        state.to_owned(),
        terminal::or_dash(room.kernel_type.clone()),
        terminal::or_dash(room.env_source.clone()),
        terminal::or_dash(room.kernel_status.clone()),
        room.active_peers.to_string(),
    ]
}
