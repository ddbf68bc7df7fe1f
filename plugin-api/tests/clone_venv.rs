//! Copies of a real venv: they run, and what happens in them stays there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use runtimed_plugin_api::{Environment, ErrorCode, clone_venv};

/// A venv with one package, its byte code, a script, a program, settings and what an installer notes.
fn template(folder: &Path) -> Environment {
    let prefix = folder.join("template-1");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&prefix).status().unwrap();
    assert!(made.success());
    let env = Environment::at(&prefix, "venv", Vec::new());
    let site = site_packages(&env);
    let name = prefix.display();
    fs::create_dir_all(site.join("pack-1.dist-info")).unwrap();
    fs::create_dir_all(site.join("pack")).unwrap();
    fs::create_dir_all(prefix.join("etc")).unwrap();
    fs::write(site.join("pack/__init__.py"), "def fail():\n    raise ValueError\n").unwrap();
    fs::write(site.join("pack/data.bin"), [0, 1, 2]).unwrap();
    fs::write(site.join("pack-1.dist-info/RECORD"), format!("{name}/bin/tool,,\n")).unwrap();
    fs::write(site.join("pack.pth"), format!("{name}/extra\n")).unwrap();
    fs::write(prefix.join("etc/settings.json"), format!("{{\"at\": \"{name}\"}}")).unwrap();
    let tool = prefix.join("bin/tool");
    fs::write(&tool, format!("#!{name}/bin/python\nimport pack, sys; print(sys.prefix)\n")).unwrap();
    fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(prefix.join("bin/program"), format!("\0{name}")).unwrap();
    symlink(prefix.join("bin/tool"), prefix.join("bin/link")).unwrap();
    assert_eq!(run(&env.python, &["-m", "compileall", "-q", site.to_str().unwrap()]), "");
    env
}

fn site_packages(env: &Environment) -> PathBuf {
    run(&env.python, &["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).into()
}

fn run(program: &Path, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_copy_runs_by_itself_and_shares_what_nobody_edits() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let mut template = template(&folder);
    template.set_in_background(true);
    let prefix = folder.join("copy-1");
    let copy = clone_venv(&template, &prefix).await.unwrap();
    assert_eq!(copy, Environment::at(&prefix, "venv", Vec::new()));
    let (ours, theirs) = (site_packages(&copy), site_packages(&template));
    assert!(ours.starts_with(&prefix));

    // Nothing but the program still names the template, and everything starts.
    let grep = Command::new("grep").args(["-rlI", &*template.prefix.to_string_lossy()]).arg(&prefix).output();
    assert_eq!(String::from_utf8(grep.unwrap().stdout).unwrap(), "");
    assert_eq!(
        fs::read(prefix.join("bin/program")).unwrap(),
        fs::read(template.prefix.join("bin/program")).unwrap()
    );
    assert_eq!(run(&prefix.join("bin/tool"), &[]), prefix.to_str().unwrap());
    assert_eq!(fs::read_link(prefix.join("bin/link")).unwrap(), prefix.join("bin/tool"));

    // The byte code is the template's, and is good: nobody writes another one. What it says is true.
    let cached = fs::read_dir(ours.join("pack/__pycache__")).unwrap().next().unwrap().unwrap().path();
    let before = fs::metadata(&cached).unwrap();
    let trace = "import pack\ntry: pack.fail()\nexcept ValueError as e: print(e.__traceback__.tb_next.tb_frame.f_code.co_filename)";
    assert_eq!(run(&copy.python, &["-c", trace]), ours.join("pack/__init__.py").to_str().unwrap());
    assert_eq!(fs::metadata(&cached).unwrap().ino(), before.ino());
    let blocks = |path: &Path| fs::metadata(path).unwrap().ino();
    let shared = |name: &str| blocks(&ours.join(name)) == blocks(&theirs.join(name));
    let reflinks = !shared("pack/data.bin");
    assert!(reflinks || shared("pack/__init__.py") && cached.starts_with(&ours));

    // What is edited in place is edited here alone.
    for name in ["pack.pth", "pack-1.dist-info/RECORD"] {
        fs::write(ours.join(name), "changed").unwrap();
        assert_ne!(fs::read(theirs.join(name)).unwrap(), b"changed", "{name}");
    }
    for name in ["pyvenv.cfg", "etc/settings.json", "bin/tool", "bin/activate"] {
        fs::write(prefix.join(name), "changed").unwrap();
        assert_ne!(fs::read(template.prefix.join(name)).unwrap(), b"changed", "{name}");
    }
    fs::remove_dir_all(&prefix).unwrap();
    assert_eq!(run(&template.prefix.join("bin/tool"), &[]), template.prefix.to_str().unwrap());
}

#[tokio::test]
async fn what_cannot_be_copied_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let template = template(folder.path());
    let code = async |env: &Environment, to: &Path| clone_venv(env, to).await.unwrap_err().code;
    let there = folder.path().join("there");
    fs::create_dir(&there).unwrap();
    assert_eq!(code(&template, &there).await, ErrorCode::Conflict);
    assert_eq!(code(&template, &template.prefix.join("inside")).await, ErrorCode::Invalid);
    let elsewhere = Environment { python: "/usr/bin/python3".into(), ..template.clone() };
    assert_eq!(code(&elsewhere, &folder.path().join("b")).await, ErrorCode::Unsupported);
    let long = folder.path().join("x".repeat(120));
    let error = clone_venv(&template, &long).await.unwrap_err();
    assert!(error.code == ErrorCode::Unsupported && error.message.contains("too long"), "{error}");
    fs::remove_file(template.prefix.join("pyvenv.cfg")).unwrap();
    assert_eq!(code(&template, &folder.path().join("b")).await, ErrorCode::Unsupported);
}
