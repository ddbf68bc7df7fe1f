//! What a test asked for: the file `misbehave`.

use std::fs::{self, OpenOptions};
use std::future::pending;
use std::io::Write;
use std::path::PathBuf;

use runtimed_plugin_api::{Host, PluginError, Result};

use crate::deeds;

/// Reads the orders anew at each call. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Orders {
    /// The plugin's folder.
    pub(crate) folder: PathBuf,
}

/// What a call was told to do beside its work. Hold it until the call ends.
#[derive(Default)]
pub(crate) struct Order {
    deed: String,
    _bomb: Option<Bomb>,
}

/// Panics when it is dropped.
struct Bomb;

impl Orders {
    pub(crate) fn of(host: &Host) -> Self {
        Self { folder: host.directories().plugin }
    }

    /// The mode, `DEED:METHOD`; empty while the plugin is to behave well.
    pub(crate) fn mode(&self) -> String {
        fs::read_to_string(self.folder.join("misbehave")).unwrap_or_default().trim().to_owned()
    }

    /// Does what an asynchronous method was told to do.
    pub(crate) async fn obey(&self, method: &str) -> Result<Order> {
        let order = self.obey_at_once(method)?;
        if order.is("hang") {
            pending::<()>().await;
        }
        Ok(order)
    }

    /// Does what a synchronous method was told to do. What belongs into one method only is left to that one.
    pub(crate) fn obey_at_once(&self, method: &str) -> Result<Order> {
        let mode = self.mode();
        let Some((deed, target)) = mode.split_once(':') else {
            return match mode.is_empty() {
                true => Ok(Order::default()),
                false => Err(PluginError::invalid(format!("`{mode}` is not DEED:METHOD"))),
            };
        };
        if target != method {
            return Ok(Order::default());
        }
        self.note("done", &mode);
        deeds::commit(deed, &mode, self)?;
        let bomb = (deed == "destructor").then(|| Bomb);
        Ok(Order { deed: deed.to_owned(), _bomb: bomb })
    }

    /// Adds a line to a file in the plugin's folder. A test that misses it fails by itself.
    pub(crate) fn note(&self, file: &str, line: &str) {
        let opened = OpenOptions::new().create(true).append(true).open(self.folder.join(file));
        let _ = opened.and_then(|mut opened| opened.write_all(format!("{line}\n").as_bytes()));
    }
}

impl Order {
    pub(crate) fn is(&self, deed: &str) -> bool {
        self.deed == deed
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor panics, as the test asked");
    }
}
