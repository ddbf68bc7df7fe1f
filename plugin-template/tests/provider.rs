//! The provider without a daemon, as runtimed's conformance kit sees it: real processes, real environments.

use runtimed_plugin_testkit::{Check, Subject};
use venv_environments::Provider;

#[test]
fn conforms() {
    let subject = Subject::of::<Provider>(env!("CARGO_MANIFEST_DIR"));
    Check::new(subject).run().assert_passed();
}
