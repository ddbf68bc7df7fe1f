//! Makes a home with a past: many notebooks that nobody has open.
//!
//! For: `cargo xtask bench --only full`, which measures how a daemon starts in it. Arguments: the socket of a daemon, and
//! how many notebooks it shall keep.

use std::error::Error;
use std::path::PathBuf;

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{Client, NotebookSession};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(many)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err("usage: fill SOCKET NOTEBOOKS".into());
    };
    let client = Client::new(socket);
    for number in 0..many.parse::<usize>()? {
        // A kernel that nobody has: nothing starts beside it.
        let create = CreateNotebook { runtime: "nobody-has-it".into(), ..CreateNotebook::default() };
        let session = NotebookSession::create(&client, create).await?;
        session.ready().await?;
        let source = format!("x = {number}\n").repeat(20);
        let cell = NewCell { id: "only".into(), cell_type: "code".into(), source, ..NewCell::default() };
        session.edit(|notebook| notebook.insert_cell(Place::End, &cell))?;
        session.request(NotebookRequest::AcknowledgeNotebookSync).await?;
        session.close().await;
    }
    Ok(())
}
