//! The bridge from a plugin's `tracing` to the host's.
//!
//! For: authors who write `tracing::info!` and expect it in the daemon's log.
//! Promises: a level changed in the host takes effect at once; fields of the spans an event is in are
//! flattened into it, inner ones winning.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use runtimed_plugin_abi::HostServicesObject;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// The host that made this library's latest instance. A library has one `tracing` dispatcher and one
/// panic hook, so they share it.
static HOST: RwLock<Option<Arc<HostServicesObject>>> = RwLock::new(None);

/// Sends this library's `tracing` events to `host` from now on.
pub(crate) fn bridge(host: Arc<HostServicesObject>) {
    let former = HOST.write().unwrap_or_else(PoisonError::into_inner).replace(host);
    // After the lock is free: dropping it calls out to the host.
    drop(former);
    // Fails when a former instance installed it already, which is as good.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Bridge));
}

/// Writes one line to the host's log, if there is a host.
pub(super) fn forward(level: u8, target: &str, message: &str, fields: &str) {
    if let Some(host) = host() {
        host.log(level, target.into(), message.into(), fields.into());
    }
}

fn host() -> Option<Arc<HostServicesObject>> {
    HOST.read().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Bridge;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Bridge {
    /// Never cached per call site, or a level lowered later in the host would go unnoticed.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        host().is_some_and(|host| host.log_enabled(number(metadata.level()), metadata.target().into()))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.map.extend(outer.map.clone());
            }
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        let text = Value::Object(fields.map).to_string();
        forward(number(metadata.level()), metadata.target(), &fields.message, &text);
    }
}

/// A level's ABI number.
fn number(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// Fields of one span or event; an event's text is apart.
#[derive(Default)]
struct Fields {
    message: String,
    map: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.map.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.put(field, format!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            _ => self.put(field, value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}
