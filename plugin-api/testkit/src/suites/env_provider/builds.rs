//! Real environments. What the network or a tool keeps from being built is skipped with the reason.

use std::time::Duration;

use runtimed_plugin_api::{EnvPlan, Environment, ErrorCode, Health};
use serde_json::json;
use tokio::net::TcpListener;

use super::tested::{Tested, nothing_beside};
use crate::bench::{Progressed, built, is_out_of_reach, lock};
use crate::case::{Stop, Verdict, require};
use crate::report::Fault;

/// A package that no index has: the project's own names are not given away.
const IMPOSSIBLE: &str = "runtimed-testkit-no-such-package==0.0.0";
/// How long a call that was dropped may take to notice, after which everything it does is held against it. Dropping
/// aborts the body on the plugin's own threads, which takes microseconds on an idle machine.
const NOTICING: Duration = Duration::from_millis(300);
/// How long is watched for what must not happen any more.
const WATCHING: Duration = Duration::from_millis(300);
/// Steps that a call may still report while it notices that it was dropped.
const LATE_STEPS: u64 = 100;
/// What a provider that goes on has to change.
const INSIDE: &str =
    "do the work inside of the future: what is spawned beside it goes on when that is dropped";
/// Prints the version of the package whose name stands in `NAME`, if it is there.
const FIND_PACKAGE: &str = "import importlib.metadata as m; print(m.version('NAME'))";

pub(super) async fn create(it: &Tested<'_>) -> Verdict {
    let env = it.shared().await?;
    let folder = env.prefix.parent().unwrap_or(&env.prefix);
    nothing_beside(folder, &[&env.prefix])?;
    describes_itself(it, &env)?;
    it.require_usable(&env).await?;
    let exit = it.python(&env, "print(6 * 7)").await?;
    require(exit.success() && exit.stdout.trim() == "42", || {
        Fault::new(
            "the interpreter that `EnvProvider::launch` names did not run `print(6 * 7)`",
            "let `argv` start a Python that takes further arguments",
        )
        .detail(format!("exit code {:?}\n{}\n{}", exit.code, exit.stdout, exit.stderr))
    })
}

fn describes_itself(it: &Tested<'_>, env: &Environment) -> Verdict {
    let wrong = |what: String| Fault::new(what, "describe the environment that was built");
    require(env.kind == it.info.kind, || {
        wrong(format!("the environment says that its kind is `{}`", env.kind))
    })?;
    require(env.prefix.is_dir(), || {
        wrong(format!("the environment says that it is at `{}`, and nothing is there", env.prefix.display()))
    })?;
    require(env.python.is_absolute() && env.python.exists(), || {
        wrong(format!(
            "the environment says that its interpreter is `{}`, and nothing is there",
            env.python.display()
        ))
    })
}

pub(super) async fn document(it: &Tested<'_>) -> Verdict {
    let env = it.shared().await?;
    let mut text = serde_json::to_value(&env).unwrap_or_default();
    text["from_the_future"] = json!({ "version": 9 });
    if !text["extra"].is_object() {
        text["extra"] = json!({});
    }
    text["extra"]["from_the_future"] = json!([1, null, "three"]);
    let newer: Environment = serde_json::from_value(text).map_err(|error| {
        Fault::new(
            format!("the environment cannot be read back: {error}"),
            "keep to the shape of `Environment`",
        )
    })?;
    it.require_usable(&newer).await?;
    it.launch(&newer).await.map(drop)
}

pub(super) async fn install(it: &Tested<'_>) -> Verdict {
    let env = it.shared().await?;
    let package = it.bench.session.package.clone();
    let (task, _) = it.bench.task();
    let packages = [package.clone()];
    let done = it.bench.build("EnvProvider::install", it.provider.install(&env, &packages, task)).await?;
    if let Err(error) = &done
        && error.code == ErrorCode::Unsupported
    {
        return Err(Stop::skipped(format!("the provider does not offer it: {}", error.message)));
    }
    built("EnvProvider::install", done, "install it, or answer `Unsupported`")?;
    it.require_usable(&env).await?;
    let exit = it.python(&env, &FIND_PACKAGE.replace("NAME", &package)).await?;
    require(exit.success(), || {
        Fault::new(
            format!("`EnvProvider::install` said that it installed `{package}`, and the interpreter does not find it"),
            "install into the environment that was named, and fail if that fails",
        )
        .detail(exit.stderr.clone())
    })
}

pub(super) async fn twice(it: &Tested<'_>) -> Verdict {
    // Whatever is downloaded once, such as a tool, is there afterwards.
    it.shared().await?;
    let folder = it.lasting_folder("twice")?;
    let plan = it.plan(it.request(&[])).await?;
    let (a, b) = (folder.join("a"), folder.join("b"));
    let both = async {
        let (task_a, task_b) = (it.bench.task().0, it.bench.task().0);
        tokio::join!(
            it.provider.create(plan.clone(), &a, task_a),
            it.provider.create(plan.clone(), &b, task_b),
        )
    };
    let limit = it.bench.session.limits.build;
    let (one, two) = it.bench.wait("EnvProvider::create, twice at once", limit, both).await?;
    for (env, prefix) in [(one, &a), (two, &b)] {
        let env =
            built("EnvProvider::create", env, "let builds of the same plan not get in each other's way")?;
        require(env.prefix == **prefix, || {
            Fault::new(
                format!(
                    "`EnvProvider::create` built in `{}` instead of `{}`",
                    env.prefix.display(),
                    prefix.display()
                ),
                "build in the prefix that was given: the host shares environments, providers do not",
            )
        })?;
        it.require_usable(&env).await?;
        lock(&it.bench.session.spare).push(env);
    }
    nothing_beside(&folder, &[&a, &b])
}

pub(super) async fn options(it: &Tested<'_>) -> Verdict {
    // Nobody answers there; that somebody comes is enough.
    let bound = async {
        let index = TcpListener::bind("127.0.0.1:0").await?;
        Ok::<_, std::io::Error>((index.local_addr()?, index))
    };
    let Ok((address, index)) = bound.await else {
        return Err(Stop::skipped("no port could be opened on the loopback interface"));
    };
    let env = it.shared().await?;
    let folder = it.folder("options")?;
    let option = format!("--index-url=http://{address}/simple");
    let request = it.request(&[&it.bench.session.package, &option]);
    let plan = it.bench.call("EnvProvider::plan", it.provider.plan(request.clone())).await?;
    // `create` cannot rely on `plan` having looked: plans are documents.
    let plan = plan.unwrap_or(EnvPlan { key: "0".repeat(16), request });
    let (prefix, (task, _)) = (folder.join("a"), it.bench.task());
    let creating = it.provider.create(plan, &prefix, task);
    not_taken(it, "EnvProvider::create", &option, &index, async { drop(creating.await) }).await?;
    let packages = [option.clone(), IMPOSSIBLE.to_owned()];
    let installing = it.provider.install(&env, &packages, it.bench.task().0);
    not_taken(it, "EnvProvider::install", &option, &index, async { drop(installing.await) }).await
}

/// Fails if somebody comes to `index` before the call ends; what else becomes of the call is all the same.
async fn not_taken(
    it: &Tested<'_>,
    method: &str,
    option: &str,
    index: &TcpListener,
    call: impl Future<Output = ()>,
) -> Verdict {
    let came = async {
        tokio::select! {
            biased;
            _ = index.accept() => true,
            () = call => false,
        }
    };
    let came = it.bench.wait(method, it.bench.session.limits.build, came).await?;
    require(!came, || {
        Fault::new(
            format!("`{method}` took the package `{option}` for an option"),
            "refuse packages that begin with `-`, and put `--` before the packages of a command line",
        )
    })
}

pub(super) async fn failed(it: &Tested<'_>) -> Verdict {
    let folder = it.folder("failed")?;
    let prefix = folder.join("a");
    let request = it.request(&[IMPOSSIBLE]);
    let plan = it.bench.call("EnvProvider::plan", it.provider.plan(request)).await?;
    if let Ok(plan) = plan {
        let (task, _) = it.bench.task();
        match it.bench.build("EnvProvider::create", it.provider.create(plan, &prefix, task)).await? {
            Ok(_) => {
                return Err(Fault::new(
                    format!(
                        "`EnvProvider::create` said that it installed `{IMPOSSIBLE}`, which does not exist"
                    ),
                    "fail when a package cannot be installed",
                )
                .into());
            }
            Err(error) if is_out_of_reach(&error) => {
                return Err(Stop::skipped(format!("something is out of reach: {}", error.message)));
            }
            Err(error) => require(!error.message.trim().is_empty(), || {
                Fault::new(
                    "`EnvProvider::create` failed without a message",
                    "say what happened and what to do",
                )
            })?,
        }
    }
    // The prefix itself is the host's to delete, whatever is in it.
    nothing_beside(&folder, &[&prefix])?;
    it.bench.nothing_left().await
}

/// When a build is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// After its first poll, before it can have done anything.
    AtOnce,
    /// When it has reported so many steps.
    Progress(u64),
    /// When it has started so many processes.
    Process(usize),
}

pub(super) async fn cancelled(it: &Tested<'_>) -> Verdict {
    let plan = it.plan(it.request(&[])).await?;
    cut_short(it, &plan, Cut::AtOnce).await?;
    // Otherwise downloads that all builds share would be what is given up next.
    it.shared().await?;
    for cut in [Cut::Progress(1), Cut::Process(1), Cut::Process(2)] {
        cut_short(it, &plan, cut).await?;
    }
    Ok(())
}

async fn cut_short(it: &Tested<'_>, plan: &EnvPlan, cut: Cut) -> Verdict {
    let folder = it.folder(&format!("{cut:?}"))?;
    let prefix = folder.join("a");
    let (task, progressed) = it.bench.task();
    let before = it.bench.host.processes_started();
    let cut_off = async {
        match cut {
            Cut::AtOnce => {}
            Cut::Progress(steps) => progressed.reach(steps).await,
            Cut::Process(number) => it.bench.host.wait_for_process(before + number).await,
        }
    };
    let mut creating = it.provider.create(plan.clone(), &prefix, task);
    let half_way = async {
        tokio::select! {
            biased;
            // Finished before it could be given up.
            _ = &mut creating => {}
            () = cut_off => {}
        }
    };
    it.bench.wait("EnvProvider::create", it.bench.session.limits.build, half_way).await?;
    let heard = progressed.count();
    it.bench.at_once("drop of a call of EnvProvider::create", || drop(creating))?;
    stays_quiet(&progressed, heard).await?;
    // What comes back now is built by somebody who was told to stop.
    let _ = std::fs::remove_dir_all(&prefix);
    tokio::time::sleep(WATCHING).await;
    require(!prefix.exists(), || {
        Fault::new("`EnvProvider::create` went on building after it was dropped", INSIDE)
    })?;
    nothing_beside(&folder, &[&prefix])?;
    it.bench.nothing_left().await
}

/// Fails if a call that was dropped goes on reporting progress.
async fn stays_quiet(progressed: &Progressed, heard: u64) -> Verdict {
    tokio::time::sleep(NOTICING).await;
    let noticed = progressed.count();
    tokio::time::sleep(WATCHING).await;
    let late = progressed.count() - if noticed - heard > LATE_STEPS { heard } else { noticed };
    require(late == 0, || {
        Fault::new(
            format!("`EnvProvider::create` reported progress {late} times after it was dropped"),
            INSIDE,
        )
    })
}

pub(super) async fn broken(it: &Tested<'_>) -> Verdict {
    let env = it.spare().await?;
    let require_broken = async |what: &str| match it.verify(&env).await? {
        Health::Broken { reason } => require(!reason.trim().is_empty(), || {
            Fault::new(
                "`EnvProvider::verify` calls an environment broken without a reason",
                "say what is missing",
            )
        }),
        Health::Usable => Err(Fault::new(
            format!("`EnvProvider::verify` calls an environment usable {what}"),
            "look for what a kernel needs: the interpreter at least",
        )
        .into()),
    };
    if env.python.starts_with(&env.prefix) && std::fs::remove_file(&env.python).is_ok() {
        require_broken("whose interpreter is gone").await?;
    }
    // Moved away: on a busy disk, removing it takes longer than a plugin may.
    if std::fs::rename(&env.prefix, env.prefix.with_extension("gone")).is_ok() && !env.python.exists() {
        require_broken("whose folder is gone").await?;
    }
    Ok(())
}
