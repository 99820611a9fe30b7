use longshore_tests::lab::*;
fn main() -> anyhow::Result<()> {
    let home = Home::new()?;
    let network = net::Network::new(&home, 1)?;
    let pods = cni::PodNetwork::default();
    let c = Containerd::start(&containerd::Binary::in_path()?, &home, Some(&network.node), &pods)?;
    for a in image::standard()? { c.import(&a)?; }
    println!("ENDPOINT={} NS={} CG={} BASE={}", c.endpoint(), network.node.path().display(), home.cgroup(), home.base().display());
    loop { std::thread::sleep(std::time::Duration::from_secs(3600)); }
}
