//! `env-provider`: what pools, trust and rooms rely on.

mod builds;
mod copies;
mod plans;
mod tested;

use crate::case::{Case, case};
use tested::each;

pub(crate) const CASES: &[Case] = &[
    case!("info", "it says what it is, plainly and always the same", |bench| each(bench, plans::info)),
    case!("detect-nothing", "an empty folder has no project", |bench| each(bench, plans::detect_nothing)),
    case!("plan-is-stable", "equal requests get equal keys of 16 hex digits, in every instance", |bench| {
        each(bench, plans::stable)
    }),
    case!("plan-tells-apart", "requests for different environments get different keys", |bench| each(
        bench,
        plans::tells_apart
    )),
    case!("plan-does-nothing", "planning leaves no trace", |bench| each(bench, plans::does_nothing)),
    case!(
        "identities",
        "trust is asked about everything a notebook declares, and about nothing else",
        |bench| { each(bench, plans::identities) }
    ),
    case!("create", "an environment with the base packages is usable and starts an interpreter", |bench| {
        each(bench, builds::create)
    }),
    case!("document", "an environment that a newer version described is still usable", |bench| each(
        bench,
        builds::document
    )),
    case!("clone", "a copy is an environment of its own, or the provider makes none", |bench| each(
        bench,
        copies::alone
    )),
    case!("install", "a package can be added to an environment that is in use", |bench| each(
        bench,
        builds::install
    )),
    case!("same-plan-twice", "one plan can be built in two places at once", |bench| each(
        bench,
        builds::twice
    )),
    case!("options-are-no-packages", "a package that looks like an option is not taken for one", |bench| {
        each(bench, builds::options)
    }),
    case!(
        "failed-create",
        "what cannot be built is an error and leaves nothing beside its prefix",
        |bench| each(bench, builds::failed)
    ),
    case!("cancelled-create", "a build that is given up half way ends at once and for good", |bench| each(
        bench,
        builds::cancelled
    )),
    case!("broken", "an environment that lost its files is called broken", |bench| each(
        bench,
        builds::broken
    )),
];
