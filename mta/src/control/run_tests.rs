//! The admin port's certificate, watched while the port serves.

use super::*;

const SETTINGS: &str = "hostname = \"relay.example.test\"\ndata_dir = \"data\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
                        role = \"relay\"\ntrusted_networks = [\"127.0.0.0/8\"]\nmember = \"did:web:host.example.test\"\n[[source]]\nname = \"ip-a\"\naddress = \"192.0.2.7\"\n\
                        ehlo = \"a.relay.example.test\"\n[admin]\naddress = \"127.0.0.1:0\"\n";

fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_is_shown_and_one_that_is_no_good_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("admin.pem"), folder.path().join("admin-key.pem"));
    // Renamed into place, as those who renew do: within a tick of the kernel's clock another time of change is no sign.
    let put = |path: &Path, text: &str| {
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    let write = |pem: &str, its_key: &str| {
        put(&certificate, pem);
        put(&key, its_key);
    };
    let ((one, one_key), (two, two_key)) = (pair(), pair());
    write(&one, &one_key);
    let text = format!("{SETTINGS}[admin.tls]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
    let config = Config::parse(Path::new("mta.toml"), &text).unwrap();
    let files = config.admin.as_ref().and_then(|admin| admin.tls.as_ref()).unwrap();
    let shown: Certificate = Arc::new(ArcSwap::from_pointee(read_certificate(files).unwrap()));
    let first = shown.load_full();
    let story = async {
        let is = |other: &Arc<tls::Server>| Arc::ptr_eq(&shown.load_full(), other);
        tokio::time::sleep(3 * LOOK).await;
        assert!(is(&first), "nothing has changed");
        write(&two, &two_key);
        tokio::time::sleep(3 * LOOK).await;
        let second = shown.load_full();
        assert!(!is(&first));
        for (pem, its_key) in [(one.as_str(), two_key.as_str()), ("rubbish", "rubbish"), (two.as_str(), "")] {
            write(pem, its_key);
            tokio::time::sleep(3 * LOOK).await;
            assert!(is(&second), "the old one stays");
        }
        write(&one, &one_key);
        tokio::time::sleep(3 * LOOK).await;
        assert!(!is(&second), "what was no good does not end the watch");
    };
    tokio::select! {
        () = renew(&config, Some(shown.clone())) => panic!("the watch has ended"),
        () = story => {}
    }
}
