use std::process::ExitCode;

fn main() -> ExitCode {
    trefoil::cli::main()
}
