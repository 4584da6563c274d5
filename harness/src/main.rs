//! Parse, dispatch, exit status.
#![forbid(unsafe_code)]

use clap::error::ErrorKind;
use heaplab::cli::usage;
use heaplab::error::{self, Error};
use heaplab::{cmd, interrupt, out, recording};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    // `args` panics on what is not UTF-8, which is for the parser to deal with.
    let arguments = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    if let Some(cost) = recording::calibration(arguments) {
        return match out::print(&cost) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => ExitCode::from(error.code()),
        };
    }
    interrupt::survive_file_limits();
    let words: Vec<OsString> = std::env::args_os().collect();
    let bisects = usage::bisects(&words);
    let status = match usage::parse(words.clone()) {
        Ok(cli) => cmd::dispatch(cli).map(heaplab::error::Outcome::code),
        Err(e) => match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                out::print(&e.render().to_string()).map(|()| 0)
            }
            _ => Err(usage::sentence(&e, &words)),
        },
    };
    if let Err(error) = &status
        && *error != Error::ClosedOutput
    {
        out::remark(&format!("heaplab: {error}"));
    }
    ExitCode::from(match &status {
        _ if bisects => error::bisected(&status),
        Ok(code) => *code,
        Err(error) => error.code(),
    })
}
