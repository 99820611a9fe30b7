//! Compiles `proto/` into the messages, clients and servers of `v1`; needs no `protoc`.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["runtime.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Ordered maps: the same input gives the same bytes.
        .btree_map(".")
        // Credentials must not reach a log through `{:?}`; `v1.rs` writes them by hand.
        .skip_debug([".runtime.v1.AuthConfig"])
        // The fake runtime answers what it has; the rest is Unimplemented, as in old runtimes.
        .generate_default_stubs(true)
        .server_mod_attribute(".", "#[cfg(feature = \"fake\")]")
        .compile_fds(files)?;
    for own in ["containerd_tasks.proto", "containerd_content.proto"] {
        let files = protox::compile([own], ["proto"])?;
        tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    }
    Ok(())
}
