//! A figure, printed for people and added to the file that `cargo xtask bench` collects them in.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use serde_json::json;

/// Shows how long something took each time it was done.
pub(crate) fn times(name: &str, what: &str, times: &[Duration]) -> Result<(), Box<dyn Error + Send + Sync>> {
    show(name, what, "ms", times.iter().map(|time| time.as_secs_f64() * 1000.0).collect())
}

/// Shows what was measured, at least once.
pub(crate) fn show(
    name: &str,
    what: &str,
    unit: &str,
    mut values: Vec<f64>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values.get(values.len() * part / 100).or(values.last()).copied();
    let (p50, p95) = (at(50).ok_or("nothing was measured")?, at(95));
    println!("{what}: {p50:.2} {unit} in the median, {:.2} at the 95th percentile", p95.unwrap_or(p50));
    if let Some(file) = std::env::var_os("BENCH_FIGURES") {
        let figure =
            json!({"name": name, "unit": unit, "p50": p50, "p95": p95, "max": at(100), "n": values.len()});
        writeln!(OpenOptions::new().append(true).create(true).open(file)?, "{figure}")?;
    }
    Ok(())
}
