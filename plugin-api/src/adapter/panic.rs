//! What happens to a panic on its way to the boundary.
//!
//! For: a plugin whose mistake becomes an error message and not the end of the daemon.
//! Promises: message and location reach the host's log even when nobody looks at the error.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Once;

use super::log;

thread_local! {
    /// Where the panic now unwinding on this thread began; the payload does not say.
    static LOCATION: Cell<Option<String>> = const { Cell::new(None) };
}

/// Level of an error in the host's log.
const ERROR: u8 = 1;

/// Makes panics of this library report to the host instead of writing to stderr. A library has a standard
/// library of its own, so this touches neither the host's hook nor another plugin's.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let location = info.location().map(Location::to_string).unwrap_or_default();
            let message = text(info.payload());
            log::forward(ERROR, "panic", &message, &serde_json::json!({ "location": location }).to_string());
            LOCATION.set(Some(location));
        }));
    });
}

/// A caught panic: its message, and its location if our hook saw it. Drops the payload safely.
pub(super) fn describe(payload: Box<dyn Any + Send>) -> (String, String) {
    let message = text(&*payload);
    // A payload's own destructor may panic, and so may that one's: forgetting ends the chain.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    (message, LOCATION.take().unwrap_or_default())
}

fn text(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    }
}
