//! Every field of a `KubeletConfiguration`, and the flag that sets it.

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Float,
    Text,
    /// In Go's form, such as `1m30s`.
    Duration,
    /// A duration, or a number of nanoseconds as older files have it.
    Flush,
    Texts,
    Ints,
    TextMap,
    /// A map that a flag writes as `memory.available<100Mi`.
    Thresholds,
    BoolMap,
    TextsMap,
    /// A quantity: a text or a number.
    Quantity,
    /// A list of objects with these members.
    Objects(&'static [(&'static str, Kind)]),
}

/// When the default stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// Where the field is missing or null.
    Missing,
    /// Also where it is zero or empty.
    Zero,
}

#[derive(Clone, Copy, Debug)]
pub enum Check {
    Any,
    AtLeast(i64),
    Within(i64, i64),
    /// 0 says that there is none.
    PortOrNone,
    OneOf(&'static [&'static str]),
}

/// What the daemon makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Used,
    /// Decoded and checked; there is no mechanism for it.
    NotYet,
    /// It does nothing upstream either, or cannot matter here.
    Nothing,
}

#[derive(Debug)]
pub struct Field {
    pub path: &'static str,
    pub kind: Kind,
    pub unset: Unset,
    /// JSON; empty: there is none.
    pub default: &'static str,
    pub check: Check,
    /// Empty: it has no flag.
    pub flag: &'static str,
    pub effect: Effect,
}

const fn f(path: &'static str, kind: Kind, unset: Unset, default: &'static str, check: Check, flag: &'static str, effect: Effect) -> Field {
    Field { path, kind, unset, default, check, flag, effect }
}

use Check::{Any, AtLeast, OneOf, PortOrNone, Within};
use Effect::{NotYet, Nothing, Used};
use Kind::{Bool, BoolMap, Duration, Float, Flush, Int32, Int64, Ints, Objects, Quantity, Text, TextMap, Texts, TextsMap, Thresholds};
use Unset::{Missing, Zero};

pub const TAINT: &[(&str, Kind)] = &[("key", Text), ("value", Text), ("effect", Text), ("timeAdded", Text)];
const LOG_TEXT: &[(&str, Kind)] = &[("filePattern", Text), ("verbosity", Int64)];
const SHUTDOWN: &[(&str, Kind)] = &[("priority", Int32), ("shutdownGracePeriodSeconds", Int64)];
const MEMORY: &[(&str, Kind)] = &[("numaNode", Int32), ("limits", TextMap)];

/// Sorted as upstream's type is.
pub static FIELDS: &[Field] = &[
    f("enableServer", Bool, Missing, "true", Any, "enable-server", Used),
    f("staticPodPath", Text, Missing, "\"\"", Any, "pod-manifest-path", Used),
    f("podLogsDir", Text, Zero, "\"/var/log/pods\"", Any, "", Used),
    f("syncFrequency", Duration, Zero, "\"1m0s\"", Any, "sync-frequency", NotYet),
    f("fileCheckFrequency", Duration, Zero, "\"20s\"", Any, "file-check-frequency", Used),
    f("httpCheckFrequency", Duration, Zero, "\"20s\"", Any, "http-check-frequency", NotYet),
    f("staticPodURL", Text, Missing, "\"\"", Any, "manifest-url", NotYet),
    f("staticPodURLHeader", TextsMap, Missing, "{}", Any, "manifest-url-header", NotYet),
    f("address", Text, Zero, "\"0.0.0.0\"", Any, "address", Used),
    f("port", Int32, Zero, "10250", Within(1, 65535), "port", Used),
    f("readOnlyPort", Int32, Missing, "0", PortOrNone, "read-only-port", Used),
    f("tlsCertFile", Text, Missing, "\"\"", Any, "tls-cert-file", Used),
    f("tlsPrivateKeyFile", Text, Missing, "\"\"", Any, "tls-private-key-file", Used),
    f("tlsCipherSuites", Texts, Missing, "[]", Any, "tls-cipher-suites", Used),
    f("tlsCurvePreferences", Ints, Missing, "[]", Any, "", NotYet),
    f(
        "tlsMinVersion",
        Text,
        Missing,
        "\"\"",
        OneOf(&["", "VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"]),
        "tls-min-version",
        Used,
    ),
    f("rotateCertificates", Bool, Missing, "false", Any, "rotate-certificates", Used),
    f("serverTLSBootstrap", Bool, Missing, "false", Any, "rotate-server-certificates", Used),
    f("authentication.x509.clientCAFile", Text, Missing, "\"\"", Any, "client-ca-file", Used),
    f("authentication.webhook.enabled", Bool, Missing, "true", Any, "authentication-token-webhook", Used),
    f("authentication.webhook.cacheTTL", Duration, Zero, "\"2m0s\"", Any, "authentication-token-webhook-cache-ttl", Used),
    f("authentication.anonymous.enabled", Bool, Missing, "false", Any, "anonymous-auth", Used),
    f("authorization.mode", Text, Zero, "\"Webhook\"", OneOf(&["Webhook", "AlwaysAllow"]), "authorization-mode", Used),
    f("authorization.webhook.cacheAuthorizedTTL", Duration, Zero, "\"5m0s\"", Any, "authorization-webhook-cache-authorized-ttl", Used),
    f("authorization.webhook.cacheUnauthorizedTTL", Duration, Zero, "\"30s\"", Any, "authorization-webhook-cache-unauthorized-ttl", Used),
    f("registryPullQPS", Int32, Missing, "5", AtLeast(0), "registry-qps", NotYet),
    f("registryBurst", Int32, Zero, "10", AtLeast(0), "registry-burst", NotYet),
    f(
        "imagePullCredentialsVerificationPolicy",
        Text,
        Zero,
        "\"NeverVerifyPreloadedImages\"",
        OneOf(&["NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"]),
        "",
        NotYet,
    ),
    f("preloadedImagesVerificationAllowlist", Texts, Missing, "[]", Any, "", NotYet),
    f("eventRecordQPS", Int32, Missing, "50", AtLeast(0), "event-qps", Used),
    f("eventBurst", Int32, Zero, "100", AtLeast(0), "event-burst", Used),
    f("enableDebuggingHandlers", Bool, Missing, "true", Any, "enable-debugging-handlers", Used),
    f("enableContentionProfiling", Bool, Missing, "false", Any, "contention-profiling", Nothing),
    f("healthzPort", Int32, Missing, "10248", PortOrNone, "healthz-port", Used),
    f("healthzBindAddress", Text, Zero, "\"127.0.0.1\"", Any, "healthz-bind-address", Used),
    f("oomScoreAdj", Int32, Missing, "-999", Within(-1000, 1000), "oom-score-adj", NotYet),
    f("clusterDomain", Text, Missing, "\"\"", Any, "cluster-domain", Used),
    f("clusterDNS", Texts, Missing, "[]", Any, "cluster-dns", Used),
    f("streamingConnectionIdleTimeout", Duration, Zero, "\"4h0m0s\"", Any, "streaming-connection-idle-timeout", Used),
    f("nodeStatusUpdateFrequency", Duration, Zero, "\"10s\"", Any, "node-status-update-frequency", Used),
    f("nodeStatusReportFrequency", Duration, Zero, "\"5m0s\"", Any, "", Used),
    f("nodeLeaseDurationSeconds", Int32, Zero, "40", AtLeast(1), "", NotYet),
    f("imageMinimumGCAge", Duration, Zero, "\"2m0s\"", Any, "minimum-image-ttl-duration", NotYet),
    f("imageMaximumGCAge", Duration, Missing, "\"0s\"", Any, "", NotYet),
    f("imageGCHighThresholdPercent", Int32, Missing, "85", Within(0, 100), "image-gc-high-threshold", NotYet),
    f("imageGCLowThresholdPercent", Int32, Missing, "80", Within(0, 100), "image-gc-low-threshold", NotYet),
    f("volumeStatsAggPeriod", Duration, Zero, "\"1m0s\"", Any, "volume-stats-agg-period", NotYet),
    f("kubeletCgroups", Text, Missing, "\"\"", Any, "kubelet-cgroups", NotYet),
    f("systemCgroups", Text, Missing, "\"\"", Any, "system-cgroups", NotYet),
    f("cgroupRoot", Text, Missing, "\"\"", Any, "cgroup-root", Used),
    f("cgroupsPerQOS", Bool, Missing, "true", Any, "cgroups-per-qos", NotYet),
    f("cgroupDriver", Text, Zero, "\"cgroupfs\"", OneOf(&["cgroupfs", "systemd"]), "cgroup-driver", Used),
    f("cpuManagerPolicy", Text, Zero, "\"none\"", OneOf(&["none", "static"]), "cpu-manager-policy", NotYet),
    f("singleProcessOOMKill", Bool, Missing, "", Any, "", Used),
    f("cpuManagerPolicyOptions", TextMap, Missing, "{}", Any, "cpu-manager-policy-options", NotYet),
    f("cpuManagerReconcilePeriod", Duration, Zero, "\"10s\"", Any, "cpu-manager-reconcile-period", NotYet),
    f("memoryManagerPolicy", Text, Zero, "\"None\"", OneOf(&["None", "Static"]), "memory-manager-policy", NotYet),
    f(
        "topologyManagerPolicy",
        Text,
        Zero,
        "\"none\"",
        OneOf(&["none", "best-effort", "restricted", "single-numa-node"]),
        "topology-manager-policy",
        NotYet,
    ),
    f("topologyManagerScope", Text, Zero, "\"container\"", OneOf(&["container", "pod"]), "topology-manager-scope", NotYet),
    f("topologyManagerPolicyOptions", TextMap, Missing, "{}", Any, "topology-manager-policy-options", NotYet),
    f("qosReserved", TextMap, Missing, "{}", Any, "qos-reserved", NotYet),
    f("runtimeRequestTimeout", Duration, Zero, "\"2m0s\"", Any, "runtime-request-timeout", Used),
    f("hairpinMode", Text, Zero, "\"promiscuous-bridge\"", OneOf(&["promiscuous-bridge", "hairpin-veth", "none"]), "hairpin-mode", Nothing),
    f("maxPods", Int32, Zero, "110", AtLeast(0), "max-pods", Used),
    f("podCIDR", Text, Missing, "\"\"", Any, "pod-cidr", NotYet),
    f("podPidsLimit", Int64, Missing, "-1", Any, "pod-max-pids", Used),
    f("resolvConf", Text, Missing, "\"/etc/resolv.conf\"", Any, "resolv-conf", Used),
    f("runOnce", Bool, Missing, "false", Any, "runonce", Nothing),
    f("cpuCFSQuota", Bool, Missing, "true", Any, "cpu-cfs-quota", NotYet),
    f("cpuCFSQuotaPeriod", Duration, Missing, "\"100ms\"", Any, "cpu-cfs-quota-period", NotYet),
    f("nodeStatusMaxImages", Int32, Missing, "50", AtLeast(-1), "node-status-max-images", NotYet),
    f("maxOpenFiles", Int64, Zero, "1000000", AtLeast(0), "max-open-files", Nothing),
    f("contentType", Text, Zero, "\"application/vnd.kubernetes.protobuf\"", Any, "kube-api-content-type", Nothing),
    f("kubeAPIQPS", Int32, Missing, "50", AtLeast(0), "kube-api-qps", Used),
    f("kubeAPIBurst", Int32, Zero, "100", AtLeast(0), "kube-api-burst", Used),
    f("serializeImagePulls", Bool, Missing, "", Any, "serialize-image-pulls", Used),
    f("maxParallelImagePulls", Int32, Missing, "", AtLeast(1), "", Used),
    f(
        "evictionHard",
        Thresholds,
        Missing,
        r#"{"memory.available":"100Mi","nodefs.available":"10%","nodefs.inodesFree":"5%","imagefs.available":"15%","imagefs.inodesFree":"5%"}"#,
        Any,
        "eviction-hard",
        NotYet,
    ),
    f("evictionSoft", Thresholds, Missing, "{}", Any, "eviction-soft", NotYet),
    f("evictionSoftGracePeriod", TextMap, Missing, "{}", Any, "eviction-soft-grace-period", NotYet),
    f("evictionPressureTransitionPeriod", Duration, Zero, "\"5m0s\"", Any, "eviction-pressure-transition-period", NotYet),
    f("evictionMaxPodGracePeriod", Int32, Missing, "0", Any, "eviction-max-pod-grace-period", NotYet),
    f("evictionMinimumReclaim", TextMap, Missing, "{}", Any, "eviction-minimum-reclaim", NotYet),
    f("mergeDefaultEvictionSettings", Bool, Missing, "false", Any, "", NotYet),
    f("podsPerCore", Int32, Missing, "0", AtLeast(0), "pods-per-core", Used),
    f("enableControllerAttachDetach", Bool, Missing, "true", Any, "enable-controller-attach-detach", NotYet),
    f("protectKernelDefaults", Bool, Missing, "false", Any, "protect-kernel-defaults", NotYet),
    f("makeIPTablesUtilChains", Bool, Missing, "true", Any, "make-iptables-util-chains", NotYet),
    f("iptablesMasqueradeBit", Int32, Missing, "14", Within(0, 31), "", Nothing),
    f("iptablesDropBit", Int32, Missing, "15", Within(0, 31), "", Nothing),
    f("featureGates", BoolMap, Missing, "{}", Any, "feature-gates", NotYet),
    f("failSwapOn", Bool, Missing, "true", Any, "fail-swap-on", Used),
    f("memorySwap.swapBehavior", Text, Missing, "\"\"", OneOf(&["", "NoSwap", "LimitedSwap"]), "", NotYet),
    f("containerLogMaxSize", Text, Zero, "\"10Mi\"", Any, "container-log-max-size", NotYet),
    f("containerLogMaxFiles", Int32, Missing, "5", AtLeast(2), "container-log-max-files", NotYet),
    f("containerLogMaxWorkers", Int32, Missing, "1", AtLeast(1), "", NotYet),
    f("containerLogMonitorInterval", Duration, Missing, "\"10s\"", Any, "", NotYet),
    f("configMapAndSecretChangeDetectionStrategy", Text, Zero, "\"Watch\"", OneOf(&["Get", "Cache", "Watch"]), "", NotYet),
    f("systemReserved", TextMap, Missing, "{}", Any, "system-reserved", NotYet),
    f("kubeReserved", TextMap, Missing, "{}", Any, "kube-reserved", NotYet),
    f("reservedSystemCPUs", Text, Missing, "\"\"", Any, "reserved-cpus", NotYet),
    f("showHiddenMetricsForVersion", Text, Missing, "\"\"", Any, "", Nothing),
    f("systemReservedCgroup", Text, Missing, "\"\"", Any, "system-reserved-cgroup", NotYet),
    f("kubeReservedCgroup", Text, Missing, "\"\"", Any, "kube-reserved-cgroup", NotYet),
    f("enforceNodeAllocatable", Texts, Missing, "[\"pods\"]", Any, "enforce-node-allocatable", NotYet),
    f("allowedUnsafeSysctls", Texts, Missing, "[]", Any, "allowed-unsafe-sysctls", Used),
    f("volumePluginDir", Text, Zero, "\"/usr/libexec/kubernetes/kubelet-plugins/volume/exec/\"", Any, "volume-plugin-dir", NotYet),
    f("providerID", Text, Missing, "\"\"", Any, "provider-id", Used),
    f("kernelMemcgNotification", Bool, Missing, "false", Any, "kernel-memcg-notification", NotYet),
    f("logging.format", Text, Zero, "\"text\"", OneOf(&["text", "json"]), "logging-format", Used),
    f("logging.flushFrequency", Flush, Zero, "\"5s\"", Any, "log-flush-frequency", Nothing),
    f("logging.verbosity", Int64, Missing, "0", AtLeast(0), "v", Used),
    f("logging.vmodule", Objects(LOG_TEXT), Missing, "[]", Any, "vmodule", Nothing),
    f("logging.options.text.splitStream", Bool, Missing, "false", Any, "log-text-split-stream", Nothing),
    f("logging.options.text.infoBufferSize", Quantity, Missing, "\"0\"", Any, "log-text-info-buffer-size", Nothing),
    f("logging.options.json.splitStream", Bool, Missing, "false", Any, "log-json-split-stream", Nothing),
    f("logging.options.json.infoBufferSize", Quantity, Missing, "\"0\"", Any, "log-json-info-buffer-size", Nothing),
    f("enableSystemLogHandler", Bool, Missing, "true", Any, "", Used),
    f("enableSystemLogQuery", Bool, Missing, "false", Any, "", Used),
    f("shutdownGracePeriod", Duration, Missing, "\"0s\"", Any, "", NotYet),
    f("shutdownGracePeriodCriticalPods", Duration, Missing, "\"0s\"", Any, "", NotYet),
    f("shutdownGracePeriodByPodPriority", Objects(SHUTDOWN), Missing, "[]", Any, "", NotYet),
    f("crashLoopBackOff.maxContainerRestartPeriod", Duration, Missing, "\"5m0s\"", Any, "", Used),
    f("reservedMemory", Objects(MEMORY), Missing, "[]", Any, "reserved-memory", NotYet),
    f("enableProfilingHandler", Bool, Missing, "true", Any, "", Used),
    f("enableDebugFlagsHandler", Bool, Missing, "true", Any, "", Used),
    f("seccompDefault", Bool, Missing, "false", Any, "seccomp-default", Used),
    f("memoryThrottlingFactor", Float, Missing, "0.9", Any, "", NotYet),
    f("memoryReservationPolicy", Text, Zero, "\"None\"", OneOf(&["None", "TieredReservation"]), "", NotYet),
    f("registerWithTaints", Objects(TAINT), Missing, "[]", Any, "register-with-taints", Used),
    f("registerNode", Bool, Missing, "true", Any, "register-node", Used),
    f("tracing.endpoint", Text, Missing, "", Any, "", NotYet),
    f("tracing.samplingRatePerMillion", Int32, Missing, "", Within(0, 1_000_000), "", NotYet),
    f("localStorageCapacityIsolation", Bool, Missing, "true", Any, "local-storage-capacity-isolation", NotYet),
    f("containerRuntimeEndpoint", Text, Zero, "\"unix:///run/containerd/containerd.sock\"", Any, "container-runtime-endpoint", Used),
    f("imageServiceEndpoint", Text, Missing, "\"\"", Any, "image-service-endpoint", NotYet),
    f("failCgroupV1", Bool, Missing, "true", Any, "fail-cgroupv1", Used),
    f("userNamespaces.idsPerPod", Int64, Missing, "65536", AtLeast(0), "", NotYet),
];

/// The field that a flag sets.
pub fn by_flag(flag: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|f| !f.flag.is_empty() && f.flag == flag)
}
