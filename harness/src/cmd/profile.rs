//! `heaplab profile`: where a program's bytes come from.

use super::trace::{chosen, of_process};
use crate::cli::profile::{ProfileArgs, ProfileFormat};
use crate::clock::Utc;
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal};
use crate::recording::Recording;
use crate::service::metric;
use crate::watch::Watch;
use crate::workload::trace_error;
use crate::{naming, profiling, render, tools};
use heaplab_reports::profile::{self, Profile};
use heaplab_reports::shell;
use heaplab_workloads::profile::ProfileOptions;
use heaplab_workloads::trace::{StackMode, Trace};
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Name of the trace in the profile's folder.
const TRACE: &str = "trace.hltrace";

/// What options for programs are told where a trace is named.
const NO_PROGRAM: &str = "a trace has run already; name a program after --";

/// Records a program, or takes a trace, and writes its profile.
///
/// # Errors
/// With a program [`Error::Launch`] with the statuses of a shell; else as for any trace.
pub fn run(args: &ProfileArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    match &args.trace {
        Some(path) => {
            args.service.unused(NO_PROGRAM)?;
            args.metrics.unused(NO_PROGRAM)?;
            let folder = folder(args, path.file_stem().unwrap_or(path.as_os_str()));
            report(args, path, &folder, terminal, false)?;
            Ok(Outcome::Done)
        }
        None => record(args, terminal),
    }
}

fn folder(args: &ProfileArgs, name: &OsStr) -> PathBuf {
    args.out.clone().unwrap_or_else(|| {
        let name = Path::new(name).file_name().unwrap_or(name);
        let name = name.to_string_lossy();
        let stem = format!("{}-profile-{name}", Utc::now().compact());
        Path::new("heaplab-results").join(stem)
    })
}

fn record(args: &ProfileArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    if args.mode() == StackMode::Off {
        return Err(Error::usage(
            "a profile needs stacks; leave out '--stacks off', or use `heaplab record`",
        ));
    }
    let service = args.service.service()?;
    let metrics = args.metrics.of_load(service.as_ref())?;
    let ours = |error: Error| Error::Launch {
        code: 125,
        message: error.to_string(),
    };
    let folder = folder(args, &args.command[0]);
    // Before a folder is made: a program that is not there leaves none behind.
    tools::find_program(&args.command[0])?;
    std::fs::create_dir_all(&folder).map_err(|error| ours(Error::io("create", &folder, &error)))?;
    let recorded = Recording {
        command: &args.command,
        out: folder.join(TRACE),
        session: args.session.options(args.mode()),
        keep_addresses: false,
        silent: false,
        service,
        metrics,
        allocator: None,
        settings: Vec::new(),
    }
    .run(terminal);
    let recorded = match recorded {
        Ok(recorded) if recorded.trace.is_some() => recorded,
        nothing => {
            // Only an empty folder goes.
            let _ = std::fs::remove_dir(&folder);
            let recorded = nothing?;
            let message = recorded.remarks.join("; ");
            return match recorded.code() {
                0 => Err(Error::Launch { code: 125, message }),
                code => {
                    out::remark(&format!("heaplab: {message}"));
                    Ok(Outcome::Command(code))
                }
            };
        }
    };
    report(args, &folder.join(TRACE), &folder, terminal, true).map_err(ours)?;
    for measured in &recorded.measured {
        terminal.say(&metric::told(measured));
    }
    for what in &recorded.remarks {
        terminal.say(&format!("! {what}"));
    }
    if let Some(trouble) = &recorded.trouble {
        return Err(Error::Launch {
            code: 125,
            message: format!("{trouble}; the profile shows what was recorded until then"),
        });
    }
    Ok(Outcome::Command(recorded.code()))
}

/// The process that was asked for, by the words of `trace info`; its number in the trace is what was taken before.
fn chosen_process(trace: &Trace, word: &str, file: &Path) -> Result<u32, Error> {
    let shown = PathBuf::from(format!("{}#{word}", file.display()));
    chosen(trace, word, &shown).or_else(|error| match word.parse() {
        Ok(number) if number < trace.summary().processes.max(1) => Ok(number),
        _ => Err(error),
    })
}

/// Makes the profile of a trace, writes it, and shows it. Beside a program's own output the tables go to standard error.
fn report(
    args: &ProfileArgs,
    path: &Path,
    folder: &Path,
    terminal: &Terminal,
    beside: bool,
) -> Result<(), Error> {
    let (file, word) = match of_process(path) {
        Some((file, word)) => (file, Some(word)),
        None => (path.to_owned(), args.process.clone()),
    };
    let trace = Trace::open(&file).map_err(trace_error)?;
    if trace.stacks().is_none() {
        return Err(naming::no_stacks(&file));
    }
    let process = word
        .map(|word| chosen_process(&trace, &word, &file))
        .transpose()?;
    let options = ProfileOptions {
        temporary: u64::from(args.short_lived),
        process,
    };
    let mut watch = Watch::new(terminal, "reading");
    if beside {
        watch = watch.keeping(format!(
            "the recording is kept: `heaplab profile {}` makes its profile",
            shell::path(path)
        ));
    }
    let made = profiling::make(&trace, &options, &mut watch.events());
    watch.clear();
    let made = made.map_err(trace_error)?;
    let files = profile::write(&made, folder).map_err(render::error)?;
    show(args, &made, terminal, beside)?;
    let picture = |file: &&PathBuf| file.extension().is_some_and(|end| end == "svg");
    let pictures = match files.iter().filter(picture).count() {
        0 => String::new(),
        1 => "1 flame graph, ".to_owned(),
        all => format!("{all} flame graphs, "),
    };
    terminal.say(&format!(
        "profile: {} ({pictures}profile.json and profile.pb.gz for pprof beside it)",
        folder.join("profile.html").display(),
    ));
    Ok(())
}

fn show(
    args: &ProfileArgs,
    made: &Profile,
    terminal: &Terminal,
    beside: bool,
) -> Result<(), Error> {
    let top = args.top as usize;
    match args.format {
        ProfileFormat::Json => out::print_json(made),
        ProfileFormat::Table if !beside => {
            out::print(&profile::render(made, render::style(terminal), top))
        }
        ProfileFormat::Table => {
            let style = render::style(&Terminal {
                color: terminal.color && std::io::stderr().is_terminal(),
                ..*terminal
            });
            let text = profile::render(made, style, top);
            text.lines().for_each(|line| terminal.say(line));
            Ok(())
        }
    }
}
