//! The program: leaving the daemon, starting the kernel, cleaning up.
//!
//! Promises: the shim is in a session of its own and holds nothing open that it inherited; when it ends, the kernel and
//! the folder are gone before those who wait for that are told.

use std::fmt::Arguments;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use serde_json::json;
use uuid::Uuid;

use crate::client::Client;
use crate::process::KernelProcess;
use crate::protocol::{
    Decoder, Exit, Failed, Launch, PROTOCOL, Reason, SOCKET, State, Welcome, document, frame, from_shim,
    to_shim,
};
use crate::record::Record;
use crate::shim::{Leave, Parts, Shim};
use crate::signer::Signer;
use crate::socket::Address;

/// How long the daemon that started us may take to say what for.
const BIRTH: Duration = Duration::from_secs(10);
/// How long a daemon may take to read our last words.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Name of the connection file in the kernel's folder.
const CONNECTION: &str = "connection.json";

/// The program `runtimed-kernel <folder>`: its standard input is the connection that it is born with, its standard
/// error a log. The folder is the kernel's own and goes with it.
pub fn run() -> ExitCode {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let Some(folder) = folder else {
        note(format_args!("runtimed starts this program, with the folder of a kernel"));
        return ExitCode::from(2);
    };
    let lived = live(&folder);
    if let Err(error) = &lived {
        note(format_args!("had to end: {error}"));
        remove(&folder);
    }
    if lived.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes a line to the log.
pub(crate) fn note(what: Arguments<'_>) {
    // A log that cannot be written has no other reader.
    let _ = writeln!(io::stderr(), "{} {what}", jiff::Timestamp::now());
}

fn live(folder: &Path) -> io::Result<()> {
    let birth = leave_the_daemon()?;
    let signals = watch_signals()?;
    let Some((launcher, launch)) = hear_the_launch(birth)? else {
        remove(folder);
        return Ok(());
    };
    let (leave, clients) = match bring_up(folder, &launch) {
        Err(failed) => (Leave::Failed(Box::new(failed)), vec![launcher]),
        Ok(Up { listener, address, signer, process }) => {
            let parts = Parts {
                socket: folder.join(SOCKET),
                launch,
                address,
                signer,
                process,
                listener,
                launcher,
                signals,
            };
            let mut shim = Shim::new(parts, Instant::now())?;
            (shim.run()?, shim.end())
        }
    };
    remove(folder);
    for mut client in clients {
        if let (Leave::Failed(failed), true) = (&leave, client.launcher) {
            client.push(document(from_shim::FAILED, failed));
        }
        // Who is gone cannot be told.
        let _ = client.finish(LAST_WORDS);
    }
    Ok(())
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        note(format_args!("could not delete `{}`: {error}", folder.display()));
    }
}

/// Makes this process independent of the one that started it; returns the connection to that.
fn leave_the_daemon() -> io::Result<UnixStream> {
    close_inherited()?;
    rustix::process::setsid()?;
    let birth = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    // A folder somebody wants to unmount one day must not be held.
    std::env::set_current_dir("/")?;
    Ok(birth)
}

/// Closes everything but the standard streams. To be called before anything is opened.
fn close_inherited() -> io::Result<()> {
    let entries = fs::read_dir("/dev/fd")?.flatten();
    let numbers: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The folder that was read is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// From now on signals that ask a process to end are bytes in a pipe. A hang-up of a terminal is none of our business.
fn watch_signals() -> io::Result<PipeReader> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block()?;
    let (reader, mut writer) = io::pipe()?;
    // Ends with the process.
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            if signal != Signal::SIGHUP && writer.write_all(&[1]).is_err() {
                return;
            }
        }
    })?;
    Ok(reader)
}

/// Waits for the daemon to say which kernel it wants; none when it goes away instead.
fn hear_the_launch(mut birth: UnixStream) -> io::Result<Option<(Client, Launch)>> {
    birth.set_read_timeout(Some(BIRTH))?;
    let mut decoder = Decoder::default();
    let mut piece = vec![0; 16 << 10];
    loop {
        while let Some(asked) = decoder.next_frame()? {
            let answer = match asked.kind {
                to_shim::LAUNCH => {
                    let launch = asked.document()?;
                    birth.set_read_timeout(None)?;
                    let mut launcher = Client::new(0, birth, decoder)?;
                    launcher.launcher = true;
                    return Ok(Some((launcher, launch)));
                }
                to_shim::HELLO => document(
                    from_shim::HELLO,
                    &Welcome {
                        protocol: PROTOCOL,
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        kernel: String::new(),
                        state: State::Starting,
                    },
                ),
                unknown => frame(from_shim::UNSUPPORTED, &[unknown]),
            };
            birth.write_all(&answer)?;
        }
        let length = birth.read(&mut piece)?;
        if length == 0 {
            return Ok(None);
        }
        decoder.buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
    }
}

/// A kernel's process, and where to meet it.
struct Up {
    listener: UnixListener,
    address: Address,
    signer: Signer,
    process: KernelProcess,
}

/// Writes the connection file, listens for daemons, starts the process and records it.
fn bring_up(folder: &Path, launch: &Launch) -> Result<Up, Failed> {
    let failed =
        |reason, error: io::Error| Failed { reason, message: error.to_string(), exit: Exit::default() };
    let not_started = |error| failed(Reason::NotStarted, error);
    let address = Address::new(launch.transport, folder).map_err(not_started)?;
    let key = Uuid::new_v4().to_string();
    let signer = Signer::new(&key).map_err(not_started)?;
    let file = folder.join(CONNECTION);
    write_connection(&file, &address, &key, &launch.kernel_name).map_err(not_started)?;
    let socket = folder.join(SOCKET);
    let listener = UnixListener::bind(&socket).map_err(not_started)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(not_started)?;
    let process = KernelProcess::spawn(launch, &file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed(Reason::NotFound, error),
        _ => not_started(error),
    })?;
    let record = Record::new(&launch.kernel, process.id(), launch.label.clone());
    record.write(folder).map_err(not_started)?;
    Ok(Up { listener, address, signer, process })
}

fn write_connection(file: &Path, address: &Address, key: &str, kernel_name: &str) -> io::Result<()> {
    let (transport, ip, [shell, iopub, stdin, control, heartbeat]) = address.parts()?;
    let document = json!({
        "transport": transport,
        "ip": ip,
        "shell_port": shell,
        "iopub_port": iopub,
        "stdin_port": stdin,
        "control_port": control,
        "hb_port": heartbeat,
        "key": key,
        "signature_scheme": "hmac-sha256",
        "kernel_name": kernel_name,
    });
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(&serde_json::to_vec_pretty(&document)?)
}
