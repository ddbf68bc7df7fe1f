//! The provider with a host that runs real processes.

use std::process::{Command, Stdio};
use std::sync::Arc;

use runtimed_plugin_api::*;

use venv_environments::Provider;

/// Runs processes and offers nothing else.
struct TestHost;

#[async_trait]
impl HostServices for TestHost {
    async fn run_process(
        &self,
        spec: ProcessSpec,
        _: Arc<dyn ProcessLines>,
    ) -> Result<ProcessExit> {
        let output =
            Command::new(&spec.argv[0]).args(&spec.argv[1..]).stdin(Stdio::null()).output();
        let output = output.map_err(|error| PluginError::internal(error.to_string()))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(ProcessExit {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        })
    }
    fn log_enabled(&self, _: u8, _: &str) -> bool {
        false
    }
    fn log(&self, _: u8, _: &str, _: &str, _: &str) {}
    fn directories(&self) -> Directories {
        let nowhere = std::path::PathBuf::new;
        Directories {
            base: nowhere(),
            runtime: nowhere(),
            blobs: nowhere(),
            executions: nowhere(),
            tools: nowhere(),
            plugin: nowhere(),
        }
    }
    fn settings(&self) -> SettingsView {
        SettingsView::default()
    }
    async fn settings_changed(&self, _: u64) -> SettingsView {
        SettingsView::default()
    }
    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        None
    }
    fn kernel_backend(&self, _: &str) -> Option<Arc<dyn KernelBackend>> {
        None
    }
    fn environments(&self) -> Option<Arc<dyn Environments>> {
        None
    }
    async fn shutting_down(&self) {}
}

fn provider() -> Arc<dyn EnvProvider> {
    <Provider as Plugin>::create(Arc::new(TestHost)).unwrap().env_providers().remove(0)
}

fn request(packages: &[&str]) -> EnvRequest {
    EnvRequest {
        packages: packages.iter().map(|&it| it.to_owned()).collect(),
        ..EnvRequest::default()
    }
}

#[tokio::test]
async fn a_real_environment() {
    let provider = provider();
    let folder = tempfile::tempdir().unwrap();
    let plan = provider.plan(request(&[])).await.unwrap();
    let env = provider.create(plan, &folder.path().join("env"), Task::silent()).await.unwrap();
    assert_eq!(provider.verify(&env).await.unwrap(), Health::Usable);
    let launch = provider.launch(&env).await.unwrap();
    assert!(Command::new(&launch.argv[0]).args(["-c", "import pip"]).status().unwrap().success());
    let option = provider.install(&env, &["--version".to_owned()], Task::silent()).await;
    assert!(option.is_err(), "an option was taken for a package");
    std::fs::remove_file(&env.python).unwrap();
    assert!(matches!(provider.verify(&env).await.unwrap(), Health::Broken { .. }));
}

#[tokio::test]
async fn equal_requests_have_equal_keys() {
    let provider = provider();
    let key = async |packages: &[&str]| provider.plan(request(packages)).await.unwrap().key;
    assert_eq!(key(&["a", "b"]).await, key(&["b", "a"]).await);
    assert_ne!(key(&["a"]).await, key(&["a", "b"]).await);
    assert_eq!(key(&[]).await.len(), 16);
}

#[tokio::test]
async fn trust_is_asked_for_what_the_notebook_declares() {
    let request = request(&["My_Pkg>=2", "x @ https://h/x.whl"]);
    let identities = provider().identities(&request).await.unwrap();
    let names: Vec<String> = identities.into_iter().map(|identity| identity.name).collect();
    assert_eq!(names, ["my-pkg", "https://h/x.whl"]);
}
