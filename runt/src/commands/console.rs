//! `runt jupyter console`: a person, or a script, in front of a kernel.
//!
//! For: kernels that are started for it, those with a connection file, and those of the daemon's notebooks.
//! Promises: a kernel that was started for it ends with it; one that was there before goes on.
//! Never: shows in a notebook what was run here; its kernel is shared, its cells are not.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use runtimed_client::Client;
use runtimed_client::protocol::pool::RoomRow;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::jupyter::connect;
use crate::cli::ConsoleOptions;
use crate::interrupt::Interrupt;
use crate::jupyter::client::{Channel, KernelClient};
use crate::jupyter::editor::{Editor, Question, Typed};
use crate::jupyter::execute::{Front, GONE};
use crate::jupyter::find::{self, Found};
use crate::jupyter::interrupt::Interrupter;
use crate::jupyter::processes::Processes;
use crate::jupyter::show::Screen;
use crate::jupyter::start::{self, Started, What};

/// How long a kernel may take to end when the console does.
const GRACE: Duration = Duration::from_secs(5);

/// How long a kernel may take to be gone after it has closed its sockets.
const FUNERAL: Duration = Duration::from_secs(1);

/// Runs the console.
pub(crate) async fn run(options: ConsoleOptions) -> anyhow::Result<ExitCode> {
    let mut interrupt = Interrupt::listen()?;
    let (started, mut client, interrupter) = match &options.existing {
        Some(name) => {
            let (client, interrupter) = connect(&existing(name).await?).await?;
            (None, client, interrupter)
        }
        None => {
            let started = interrupt.or(start(&options)).await?;
            let connected = KernelClient::connect_within(&started.connection, start::START_LIMIT).await;
            let client = connected.context(GONE)?;
            let interrupter = Interrupter::new(&started.connection, Some(started.pid()));
            (Some(started), client, interrupter)
        }
    };
    let info = interrupt.or(async { client.greet().await.context(GONE) }).await?;
    let screen = Screen::new(true);
    let front = Front::new(client, interrupter, screen, options.verbose);
    let mut console = Console { front, interrupt, failed: false };
    let typed = io::stdin().is_terminal() && io::stdout().is_terminal();
    let say = |text: &str| if typed { anstream::println!("{text}") } else { anstream::eprintln!("{text}") };
    let name = options.kernel.as_deref().or(options.existing.as_deref()).unwrap_or("kernel");
    say(&format!("{name} console\nUse Ctrl+D to exit.\n"));
    let language = info.pointer("/language_info/name").and_then(Value::as_str).unwrap_or_default();
    let done = if typed { console.dialog(language).await } else { console.script().await };
    if let Some(mut started) = started {
        if done.is_err()
            && started.gone(FUNERAL).await
            && let Some(ended) = started.ended()
        {
            anstream::eprintln!("The kernel has ended: {ended}");
        } else {
            say("Shutting down kernel...");
            end(console.front.client, started).await;
            say("Done.");
        }
    }
    done?;
    if typed {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(if console.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn start(options: &ConsoleOptions) -> anyhow::Result<Started> {
    let what = match (&options.cmd, &options.kernel) {
        (Some(command), _) => What::Command(command.clone()),
        (None, Some(kernel)) => What::Spec(start::spec(kernel)?.into()),
        (None, None) => bail!(
            "Provide a kernel name or --cmd\nSuch as 'runt jupyter console python3'; --existing takes one that runs."
        ),
    };
    start::start(&what, None, false).await
}

/// The connection file of a kernel by its name, or by its notebook's path or id.
async fn existing(name: &str) -> anyhow::Result<Found> {
    if let Some(found) = find::maybe_by_name(name)? {
        return Ok(found);
    }
    let rooms = Client::discover().list_rooms().await.map(|list| list.rooms).unwrap_or_default();
    let path = Path::new(name).canonicalize().ok();
    let is_meant = |room: &RoomRow| {
        let same_path = path.is_some() && room.notebook_path.as_deref().map(Path::new) == path.as_deref();
        same_path || room.notebook_id == name || room.kernel_pid.is_some_and(|pid| pid.to_string() == name)
    };
    let Some(room) = rooms.into_iter().find(is_meant) else {
        bail!("There is no kernel or open notebook {name}. See what there is with 'runt ps'.");
    };
    let Some(pid) = room.kernel_pid else {
        bail!("The notebook {name} has no kernel that runs. Run a cell of it first.");
    };
    let file = tokio::task::spawn_blocking(move || Processes::look().file_of(pid)).await?;
    let path = file.with_context(|| format!("process {pid} does not say where its connection file is"))?;
    Ok(Found { id: name.to_owned(), ours: false, path })
}

/// Ends a kernel that was started here.
async fn end(mut client: KernelClient, mut started: Started) {
    let asked = client.send(Channel::Control, "shutdown_request", json!({ "restart": false }));
    if asked.is_ok() {
        tokio::select! {
            _ = started.gone(GRACE) => {}
            // Reads what the kernel still says, so that it need not wait for us.
            () = async { while client.next().await.is_ok() {} } => {
                started.gone(GRACE).await;
            }
        }
    }
}

/// How long an answer may take that nobody needs to go on.
const ANSWER: Duration = Duration::from_secs(1);

/// Messages that are shown of what threads said while somebody typed.
const MEANWHILE: usize = 1000;

struct Console {
    front: Front,
    interrupt: Interrupt,
    /// Whether something that was run did not succeed.
    failed: bool,
}

impl Console {
    /// Runs what is piped in: as many lines at a time as the kernel says belong together.
    async fn script(&mut self) -> anyhow::Result<()> {
        let mut code = String::new();
        loop {
            let Console { front, interrupt, .. } = self;
            let line = interrupt.or(async { Ok(front.lines.next().await?) }).await?;
            let ended = line.is_none();
            if let Some(line) = line {
                code += &line;
                code.push('\n');
            }
            if !code.trim().is_empty() && (ended || self.is_complete(&code).await?) {
                let code = std::mem::take(&mut code);
                self.failed |= !self.front.execute(code.trim_end(), &mut self.interrupt).await?.succeeded;
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Whether the kernel wants no more lines before it runs these. One that does not say gets line by line.
    async fn is_complete(&mut self, code: &str) -> anyhow::Result<bool> {
        // As typed so far: a line end at the end of it would be an empty line, which ends a block.
        let content = json!({ "code": code.strip_suffix('\n') });
        let reply = self.front.ask("is_complete_request", content, ANSWER).await?;
        let status = reply.as_ref().and_then(|reply| reply.get("status")).and_then(Value::as_str);
        Ok(status != Some("incomplete"))
    }

    /// Runs what somebody types, until they have enough.
    async fn dialog(&mut self, language: &str) -> anyhow::Result<()> {
        let colors = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        let (asking, mut questions) = mpsc::unbounded_channel();
        let mut editor = Editor::new(language, colors, asking);
        let mut number = 1;
        loop {
            let typed;
            (editor, typed) = self.read(editor, &mut questions, number).await?;
            match typed {
                Typed::End => return Ok(()),
                Typed::Code(code) if !code.trim().is_empty() => {
                    let ended = self.front.execute(&code, &mut self.interrupt).await?;
                    number = ended.number.map_or(number, |number| number + 1);
                    anstream::println!();
                }
                Typed::Code(_) | Typed::Nothing => {}
            }
        }
    }

    /// Has something typed, and the kernel answer what the editor wants to know meanwhile.
    async fn read(
        &mut self,
        mut editor: Editor,
        questions: &mut mpsc::UnboundedReceiver<Question>,
        number: u64,
    ) -> anyhow::Result<(Editor, Typed)> {
        let stop = editor.stop();
        let mut reading = tokio::task::spawn_blocking(move || {
            let typed = editor.read(number);
            (editor, typed)
        });
        let mut waiting = HashMap::new();
        let mut meanwhile = Vec::new();
        let (mut gone, mut asked) = (None, false);
        let (editor, typed) = loop {
            tokio::select! {
                biased;
                read = &mut reading => break read?,
                _ = self.interrupt.asked(), if !asked => {
                    asked = true;
                    stop.now();
                }
                Some(Question { kind, content, reply }) = questions.recv() => {
                    // A kernel that is gone answers nobody.
                    if let Ok(id) = self.front.client.send(Channel::Shell, kind, content) {
                        waiting.insert(id, reply);
                    }
                }
                said = self.front.client.next(), if gone.is_none() => match said {
                    Ok(said) => match waiting.remove(&said.parent) {
                        // Who asked may have stopped waiting.
                        Some(reply) if said.channel == Channel::Shell => drop(reply.try_send(said.content)),
                        Some(reply) => drop(waiting.insert(said.parent, reply)),
                        None if self.front.is_ours(&said.parent) => {
                            meanwhile.truncate(MEANWHILE);
                            meanwhile.push(said);
                        }
                        None => {}
                    },
                    Err(error) => {
                        gone = Some(error);
                        stop.now();
                    }
                },
            }
        };
        for said in &meanwhile {
            self.front.screen.show(said)?;
        }
        self.front.screen.end_line()?;
        match gone {
            Some(error) => Err(error).context(GONE),
            None => Ok((editor, typed?)),
        }
    }
}
