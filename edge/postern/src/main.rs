//! Arguments in, exit code out.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The one crypto provider of the process, before anything can ask for it. Only a second installation can fail.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match postern::cli::Invocation::parse(std::env::args_os()) {
        Ok(invocation) => {
            if invocation.serves() {
                postern::pages::small();
            }
            postern::execute(invocation).into()
        }
        Err(refused) => refused.tell().into(),
    }
}
