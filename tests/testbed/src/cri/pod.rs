//! A pod and its containers, as a kubelet would request them.

use std::path::{Path, PathBuf};

use serde_json::{json, Value};

use super::cgroup;
use super::client::{Client, Failure};
use crate::{until, IMAGE};

/// The result of `exec_sync`.
#[derive(Clone, Debug)]
pub struct Exec {
    pub code: i64,
    pub stdout: String,
    pub stderr: String,
}

impl Exec {
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.code == 0, "{self:?}");
        self.stdout.trim_end()
    }
}

/// Parses a number: 64-bit numbers are strings in protobuf's JSON.
#[track_caller]
pub fn number(value: &Value) -> i64 {
    let text = value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
    text.parse().unwrap_or_else(|_| panic!("not a number: {value}"))
}

/// Merges the fields of `over` into `base`, object by object.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[derive(Clone, Debug)]
pub struct Pod {
    client: Client,
    pub id: String,
    pub config: Value,
}

impl Pod {
    /// Makes the pod's cgroup, as a kubelet does, and runs the pod.
    pub fn run(client: Client, handler: &str, config: Value) -> Result<Pod, Failure> {
        let path = text(&config["linux"]["cgroup_parent"]);
        if !path.is_empty() {
            cgroup::make(&path);
        }
        let pod = Pod::run_in_cgroup(client, handler, config);
        if pod.is_err() && !path.is_empty() {
            cgroup::remove(&path);
        }
        pod
    }

    /// Makes only RunPodSandbox: the cgroup exists, see `make_cgroup`.
    pub fn run_in_cgroup(client: Client, handler: &str, config: Value) -> Result<Pod, Failure> {
        let request = json!({ "config": config, "runtime_handler": handler });
        let answer = client.call("RunPodSandbox", &request)?;
        Ok(Pod { client, id: text(&answer["pod_sandbox_id"]), config })
    }

    pub fn make_cgroup(config: &Value) {
        cgroup::make(&text(&config["linux"]["cgroup_parent"]));
    }

    #[track_caller]
    fn call(&self, method: &str) -> Value {
        must(method, self.client.call(method, &json!({ "pod_sandbox_id": self.id })))
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.call("PodSandboxStatus")["status"].clone()
    }

    /// Returns what `crictl inspectp` shows besides the status.
    #[track_caller]
    pub fn info(&self) -> Value {
        let request = json!({ "pod_sandbox_id": self.id, "verbose": true });
        let answer = must("PodSandboxStatus", self.client.call("PodSandboxStatus", &request));
        serde_json::from_str(answer["info"]["info"].as_str().expect("it is verbose"))
            .expect("the info is JSON")
    }

    #[track_caller]
    pub fn state(&self) -> String {
        text(&self.status()["state"])
    }

    /// Waits for a state. The call itself may fail while containerd finds out that a shim is gone.
    #[track_caller]
    pub fn until_state(&self, state: &str) {
        until(&format!("pod {} to be {state}", self.id), 20, || {
            let answer = self.client.call("PodSandboxStatus", &json!({ "pod_sandbox_id": self.id })).ok()?;
            (answer["status"]["state"] == state).then_some(())
        });
    }

    #[track_caller]
    pub fn ip(&self) -> String {
        text(&self.status()["network"]["ip"])
    }

    #[track_caller]
    pub fn stats(&self) -> Value {
        self.call("PodSandboxStats")["stats"].clone()
    }

    #[track_caller]
    pub fn stop(&self) {
        self.call("StopPodSandbox");
    }

    /// Stops and removes the pod, and then its cgroup, as the kubelet would.
    #[track_caller]
    pub fn remove(&self) {
        self.stop();
        self.call("RemovePodSandbox");
        self.remove_cgroup();
    }

    /// Removes the pod without stopping it first.
    #[track_caller]
    pub fn remove_at_once(&self) {
        self.forget();
        self.remove_cgroup();
    }

    /// Makes only RemovePodSandbox.
    #[track_caller]
    pub fn forget(&self) {
        self.call("RemovePodSandbox");
    }

    /// Returns the pod's containers, as ListContainers shows them.
    #[track_caller]
    pub fn containers(&self) -> Vec<Value> {
        let request = json!({ "filter": { "pod_sandbox_id": self.id } });
        let answer = must("ListContainers", self.client.call("ListContainers", &request));
        answer["containers"].as_array().cloned().unwrap_or_default()
    }

    pub fn log_file(&self, container: &str) -> PathBuf {
        PathBuf::from(text(&self.config["log_directory"])).join(format!("{container}.log"))
    }

    pub fn remove_cgroup(&self) {
        let path = text(&self.config["linux"]["cgroup_parent"]);
        if !path.is_empty() {
            cgroup::remove(&path);
        }
    }

    /// Makes CreateContainer. `config` is the difference from a plain container.
    pub fn try_create(&self, name: &str, config: Value) -> Result<Container, Failure> {
        let options = &self.config["linux"]["security_context"]["namespace_options"];
        let mut all = json!({
            "metadata": { "name": name },
            "image": { "image": IMAGE },
            "command": ["sleep", "1000"],
            "log_path": format!("{name}.log"),
            "linux": { "security_context": { "namespace_options": options } },
        });
        merge(&mut all, &config);
        let request = json!({ "pod_sandbox_id": self.id, "config": all, "sandbox_config": self.config });
        let answer = self.client.call("CreateContainer", &request)?;
        let log = PathBuf::from(text(&self.config["log_directory"])).join(text(&all["log_path"]));
        Ok(Container { client: self.client.clone(), id: text(&answer["container_id"]), log })
    }

    #[track_caller]
    pub fn create(&self, name: &str, config: Value) -> Container {
        must("CreateContainer", self.try_create(name, config))
    }

    #[track_caller]
    pub fn start(&self, name: &str, config: Value) -> Container {
        let container = self.create(name, config);
        container.start();
        container
    }

    /// Runs `script` in a container to its end; returns its exit code and its log.
    #[track_caller]
    pub fn script(&self, name: &str, script: &str, config: Value) -> (i64, String) {
        let mut all = json!({ "command": ["sh", "-c", script] });
        merge(&mut all, &config);
        let container = self.start(name, all);
        let code = container.until_exited();
        (code, container.output())
    }
}

#[derive(Clone, Debug)]
pub struct Container {
    client: Client,
    pub id: String,
    log: PathBuf,
}

impl Container {
    #[track_caller]
    fn call(&self, method: &str) -> Value {
        must(method, self.try_call(method))
    }

    pub fn try_call(&self, method: &str) -> Result<Value, Failure> {
        self.client.call(method, &json!({ "container_id": self.id }))
    }

    #[track_caller]
    pub fn start(&self) {
        self.call("StartContainer");
    }

    #[track_caller]
    pub fn stop(&self, seconds: u32) {
        let request = json!({ "container_id": self.id, "timeout": seconds.to_string() });
        must("StopContainer", self.client.call("StopContainer", &request));
    }

    /// The archive that it becomes.
    pub fn try_checkpoint(&self, archive: &Path) -> Result<Value, Failure> {
        self.client.call("CheckpointContainer", &json!({ "container_id": self.id, "location": archive }))
    }

    #[track_caller]
    pub fn remove(&self) {
        self.call("RemoveContainer");
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.call("ContainerStatus")["status"].clone()
    }

    #[track_caller]
    pub fn state(&self) -> String {
        text(&self.status()["state"])
    }

    /// Returns the pid of its init on the host.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let request = json!({ "container_id": self.id, "verbose": true });
        let answer = must("ContainerStatus", self.client.call("ContainerStatus", &request));
        let info: Value = serde_json::from_str(answer["info"]["info"].as_str().expect("it is verbose"))
            .expect("the info is JSON");
        info["pid"].as_u64().expect("it has a pid") as u32
    }

    /// Waits for its exit, and returns the exit code.
    #[track_caller]
    pub fn until_exited(&self) -> i64 {
        until(&format!("container {} to exit", self.id), 20, || {
            let status = self.status();
            (status["state"] == "CONTAINER_EXITED").then(|| number(&status["exit_code"]))
        })
    }

    #[track_caller]
    pub fn stats(&self) -> Value {
        self.call("ContainerStats")["stats"].clone()
    }

    pub fn try_exec(&self, seconds: u32, command: &[&str]) -> Result<Exec, Failure> {
        let request = json!({ "container_id": self.id, "cmd": command, "timeout": seconds.to_string() });
        let answer = self.client.call("ExecSync", &request)?;
        Ok(Exec {
            code: number(&answer["exit_code"]),
            stdout: text(&answer["stdout"]),
            stderr: text(&answer["stderr"]),
        })
    }

    #[track_caller]
    pub fn exec(&self, command: &[&str]) -> Exec {
        must("ExecSync", self.try_exec(0, command))
    }

    /// Runs `script`, which must succeed, and returns its output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.exec(&["sh", "-c", script]).ok().to_owned()
    }

    #[track_caller]
    pub fn update(&self, resources: Value) {
        let request = json!({ "container_id": self.id, "linux": resources });
        must("UpdateContainerResources", self.client.call("UpdateContainerResources", &request));
    }

    #[track_caller]
    pub fn reopen_log(&self) {
        self.call("ReopenContainerLog");
    }

    pub fn log_file(&self) -> &PathBuf {
        &self.log
    }

    /// Returns the log without CRI's prefix of each line: time, stream, full or partial.
    pub fn output(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let text = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n";
        log.lines().map(text).collect()
    }

    /// Waits until `text` is in the log.
    #[track_caller]
    pub fn until_output(&self, text: &str) -> String {
        until(&format!("{text:?} in the log"), 20, || Some(self.output()).filter(|log| log.contains(text)))
    }

    /// Returns the URL of a stream: `Exec` or `Attach`.
    #[track_caller]
    pub fn stream(&self, method: &str, request: Value) -> String {
        let mut all = json!({ "container_id": self.id });
        merge(&mut all, &request);
        text(&must(method, self.client.call(method, &all))["url"])
    }
}

impl Pod {
    #[track_caller]
    pub fn port_forward(&self, port: u16) -> String {
        let request = json!({ "pod_sandbox_id": self.id, "port": [port] });
        let url = text(&must("PortForward", self.client.call("PortForward", &request))["url"]);
        format!("{url}?port={port}") // where WebSocket clients say it
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[track_caller]
pub fn must<T>(what: &str, result: Result<T, Failure>) -> T {
    result.unwrap_or_else(|failure| panic!("{what}: {} (code {})", failure.message, failure.code))
}
