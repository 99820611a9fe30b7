//! Compiles the health service that gRPC probes ask; needs no `protoc`.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["health.proto"], ["proto"])?;
    // The server's half is for the tests in `tests/`; unused code does not reach the daemon.
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
