//! Parse, dispatch, exit status.
#![forbid(unsafe_code)]

use clap::error::ErrorKind;
use heaplab::cli::usage;
use heaplab::error::Error;
use heaplab::{cmd, interrupt, out, recording};
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
    let status = match usage::parse(std::env::args_os()) {
        Ok(cli) => cmd::dispatch(cli).map(heaplab::error::Outcome::code),
        Err(e) => match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                out::print(&e.render().to_string()).map(|()| 0)
            }
            _ => Err(usage::sentence(&e)),
        },
    };
    match status {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if error != Error::ClosedOutput {
                out::remark(&format!("heaplab: {error}"));
            }
            ExitCode::from(error.code())
        }
    }
}
