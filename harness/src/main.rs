//! Parse, dispatch, exit status.
#![forbid(unsafe_code)]

use clap::Parser;
use clap::error::ErrorKind;
use heaplab::cli::{Cli, usage};
use heaplab::error::Error;
use heaplab::{cmd, out};
use std::process::ExitCode;

fn main() -> ExitCode {
    let status = match Cli::try_parse() {
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
