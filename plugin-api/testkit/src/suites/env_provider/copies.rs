//! Copies of environments, which pools make instead of installing again.

use runtimed_plugin_api::{Environment, ErrorCode};

use super::tested::{Tested, nothing_beside};
use crate::bench::built;
use crate::case::{Stop, Verdict, require};
use crate::report::Fault;

/// Says where its environment is, writes a module beside its packages, and changes each `.pth` file in place.
const LEAVE_A_TRACE: &str = "import pathlib, sys, sysconfig
here = pathlib.Path(sysconfig.get_path('purelib'))
(here / 'left_by_the_testkit.py').write_text('')
for file in here.glob('*.pth'):
    with file.open('a') as out: print('# left by the testkit', file=out)
print(sys.prefix)";
/// Finds such a trace.
const FIND_A_TRACE: &str = "import pathlib, sysconfig
here = pathlib.Path(sysconfig.get_path('purelib'))
print((here / 'left_by_the_testkit.py').exists() or any('testkit' in it.read_text() for it in here.glob('*.pth')))";

pub(super) async fn alone(it: &Tested<'_>) -> Verdict {
    let mut template = it.shared().await?;
    template.set_in_background(true);
    let folder = it.folder("copies")?;
    let prefix = folder.join("a");
    let copying = it.provider.clone_env(&template, &prefix, it.bench.task().0);
    let copy = it.bench.build("EnvProvider::clone_env", copying).await?;
    if let Err(error) = &copy
        && error.code == ErrorCode::Unsupported
    {
        return Err(Stop::skipped(format!("the provider does not offer it: {}", error.message)));
    }
    let copy = built("EnvProvider::clone_env", copy, "copy it, or answer `Unsupported`")?;
    require(copy.prefix == prefix && copy.kind == it.info.kind && !copy.in_background(), || {
        Fault::new(
            format!("`EnvProvider::clone_env` describes `{}`", copy.prefix.display()),
            "describe the copy: its prefix, its interpreter, and no word about the background",
        )
    })?;
    nothing_beside(&folder, &[&prefix])?;
    it.require_usable(&copy).await?;
    says(it, &copy, LEAVE_A_TRACE, &prefix.display().to_string(), "is not at home in its own prefix").await?;
    template.set_in_background(false);
    it.require_usable(&template).await?;
    says(it, &template, FIND_A_TRACE, "False", "shares files with its template that programs change in place")
        .await
}

async fn says(it: &Tested<'_>, env: &Environment, code: &str, wanted: &str, otherwise: &str) -> Verdict {
    let exit = it.python(env, code).await?;
    require(exit.success() && exit.stdout.trim() == wanted, || {
        Fault::new(
            format!("what `EnvProvider::clone_env` made {otherwise}"),
            "rewrite what names the template's prefix, and give the copy files of its own where programs write",
        )
        .detail(format!("exit code {:?}\n{}\n{}", exit.code, exit.stdout, exit.stderr))
    })
}
