//! The tools, and what they have in common.
//!
//! Promises: every answer is words that a model can go on with; a refusal says what to do instead.

mod cells;
mod dependencies;
mod edits;
mod kernel;
mod notebooks;
mod show;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::{CallToolResult, ContentBlock};
use tokio::time::Instant;

use crate::summary::Block;

pub(crate) use dependencies::trust;

/// Longest wait of one call. Most clients give up on a call before.
const LONGEST_WAIT_SECS: u64 = 600;

/// When a call that may wait for `secs` has waited long enough.
fn deadline(secs: Option<u64>, default: u64) -> Instant {
    Instant::now() + Duration::from_secs(secs.unwrap_or(default).min(LONGEST_WAIT_SECS))
}

/// An answer of words.
fn words(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

/// An answer of words and pictures.
fn answer(blocks: Vec<Block>) -> CallToolResult {
    let content = blocks.into_iter().map(|block| match block {
        Block::Text(text) => ContentBlock::text(text),
        Block::Image { media_type, bytes } => ContentBlock::image(STANDARD.encode(bytes), media_type),
    });
    CallToolResult::success(content.collect())
}
