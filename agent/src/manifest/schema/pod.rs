//! Pod of core/v1, 1.36: every field of the API, also those that a node has no use for.

use super::meta::{LABEL_SELECTOR, META, NAME, NODE_SELECTOR, NODE_TERM};
use super::pod_status::STATUS;
use super::volume::VOLUMES;
use super::{AMOUNTS, Field, INTS, PROTOCOL, Shape, TEXT_MAP, TEXTS};

pub const POD: &[Field] =
    &[("apiVersion", Shape::Text), ("kind", Shape::Text), ("metadata", META), ("spec", Shape::Object(SPEC)), ("status", STATUS)];

const CONTAINERS: Shape = Shape::Keyed(&["name"], &Shape::Object(CONTAINER));

const SPEC: &[Field] = &[
    ("containers", CONTAINERS),
    ("initContainers", CONTAINERS),
    ("ephemeralContainers", Shape::Keyed(&["name"], &Shape::Object(EPHEMERAL))),
    ("volumes", VOLUMES),
    ("restartPolicy", Shape::OneOf(&["Always", "Never", "OnFailure"])),
    ("terminationGracePeriodSeconds", Shape::Int64),
    ("activeDeadlineSeconds", Shape::Int64),
    ("dnsPolicy", Shape::OneOf(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"])),
    (
        "dnsConfig",
        Shape::Object(&[
            ("nameservers", TEXTS),
            ("searches", TEXTS),
            ("options", Shape::List(&Shape::Object(&[("name", Shape::Text), ("value", Shape::Text)]))),
        ]),
    ),
    ("nodeSelector", Shape::Atomic(&TEXT_MAP)),
    ("nodeName", Shape::Text),
    ("serviceAccountName", Shape::Text),
    ("serviceAccount", Shape::Text),
    ("automountServiceAccountToken", Shape::Bool),
    ("hostNetwork", Shape::Bool),
    ("hostPID", Shape::Bool),
    ("hostIPC", Shape::Bool),
    ("hostUsers", Shape::Bool),
    ("shareProcessNamespace", Shape::Bool),
    ("securityContext", Shape::Object(POD_SECURITY)),
    ("imagePullSecrets", Shape::Keyed(&["name"], &NAME)),
    ("hostname", Shape::Text),
    ("subdomain", Shape::Text),
    ("hostnameOverride", Shape::Text),
    ("setHostnameAsFQDN", Shape::Bool),
    ("hostAliases", Shape::Keyed(&["ip"], &Shape::Object(&[("ip", Shape::Text), ("hostnames", TEXTS)]))),
    ("affinity", Shape::Object(AFFINITY)),
    ("tolerations", TOLERATIONS),
    ("topologySpreadConstraints", Shape::Keyed(&["topologyKey", "whenUnsatisfiable"], &Shape::Object(SPREAD))),
    ("schedulerName", Shape::Text),
    ("schedulingGates", Shape::Keyed(&["name"], &Shape::Object(&[("name", Shape::Text)]))),
    ("schedulingGroup", Shape::Any),
    ("workloadRef", Shape::Any),
    ("priorityClassName", Shape::Text),
    ("priority", Shape::Int32),
    ("preemptionPolicy", Shape::OneOf(&["Never", "PreemptLowerPriority"])),
    ("readinessGates", Shape::List(&Shape::Object(&[("conditionType", Shape::Text)]))),
    ("runtimeClassName", Shape::Text),
    ("enableServiceLinks", Shape::Bool),
    ("overhead", AMOUNTS),
    ("resources", RESOURCES),
    ("resourceClaims", Shape::Retained(&Shape::Keyed(&["name"], &Shape::Object(CLAIM)))),
    ("os", Shape::Object(&[("name", Shape::OneOf(&["linux", "windows"]))])),
];

const CLAIM: &[Field] = &[("name", Shape::Text), ("resourceClaimName", Shape::Text), ("resourceClaimTemplateName", Shape::Text)];

const SPREAD: &[Field] = &[
    ("maxSkew", Shape::Int32),
    ("topologyKey", Shape::Text),
    ("whenUnsatisfiable", Shape::Text),
    ("labelSelector", LABEL_SELECTOR),
    ("minDomains", Shape::Int32),
    ("nodeAffinityPolicy", Shape::Text),
    ("nodeTaintsPolicy", Shape::Text),
    ("matchLabelKeys", TEXTS),
];

const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

const AFFINITY: &[Field] = &[
    (
        "nodeAffinity",
        Shape::Object(&[
            (REQUIRED, NODE_SELECTOR),
            (PREFERRED, Shape::List(&Shape::Object(&[("weight", Shape::Int32), ("preference", NODE_TERM)]))),
        ]),
    ),
    ("podAffinity", POD_AFFINITY),
    ("podAntiAffinity", POD_AFFINITY),
];

const POD_AFFINITY: Shape = Shape::Object(&[
    (REQUIRED, Shape::List(&POD_TERM)),
    (PREFERRED, Shape::List(&Shape::Object(&[("weight", Shape::Int32), ("podAffinityTerm", POD_TERM)]))),
]);

const POD_TERM: Shape = Shape::Object(&[
    ("labelSelector", LABEL_SELECTOR),
    ("namespaceSelector", LABEL_SELECTOR),
    ("namespaces", TEXTS),
    ("topologyKey", Shape::Text),
    ("matchLabelKeys", TEXTS),
    ("mismatchLabelKeys", TEXTS),
]);

pub const TOLERATIONS: Shape = Shape::List(&Shape::Object(TOLERATION));

const TOLERATION: &[Field] = &[
    ("key", Shape::Text),
    ("operator", Shape::Text),
    ("value", Shape::Text),
    ("effect", Shape::Text),
    ("tolerationSeconds", Shape::Int64),
];

pub const RESOURCES: Shape = Shape::Object(&[
    ("limits", AMOUNTS),
    ("requests", AMOUNTS),
    ("claims", Shape::Replaced(&Shape::Keyed(&["name"], &Shape::Object(&[("name", Shape::Text), ("request", Shape::Text)])))),
]);

const CONTAINER: &[Field] = &[
    ("name", Shape::Text),
    ("image", Shape::Text),
    ("command", TEXTS),
    ("args", TEXTS),
    ("workingDir", Shape::Text),
    ("ports", PORTS),
    ("envFrom", ENV_FROM),
    ("env", ENV),
    ("resources", RESOURCES),
    ("resizePolicy", RESIZE),
    ("restartPolicy", Shape::OneOf(&["Always", "Never", "OnFailure"])),
    ("restartPolicyRules", Shape::List(&Shape::Object(RESTART_RULE))),
    ("volumeMounts", MOUNTS),
    ("volumeDevices", DEVICES),
    ("livenessProbe", PROBE),
    ("readinessProbe", PROBE),
    ("startupProbe", PROBE),
    ("lifecycle", LIFECYCLE),
    ("terminationMessagePath", Shape::Text),
    ("terminationMessagePolicy", Shape::OneOf(&["FallbackToLogsOnError", "File"])),
    ("imagePullPolicy", PULL_POLICY),
    ("securityContext", Shape::Object(SECURITY)),
    ("stdin", Shape::Bool),
    ("stdinOnce", Shape::Bool),
    ("tty", Shape::Bool),
];

/// As a container has them; which of them may be used is for validation to say.
const EPHEMERAL: &[Field] = &[
    ("name", Shape::Text),
    ("image", Shape::Text),
    ("command", TEXTS),
    ("args", TEXTS),
    ("workingDir", Shape::Text),
    ("ports", PORTS),
    ("envFrom", ENV_FROM),
    ("env", ENV),
    ("resources", RESOURCES),
    ("resizePolicy", RESIZE),
    ("restartPolicy", Shape::OneOf(&["Always", "Never", "OnFailure"])),
    ("restartPolicyRules", Shape::List(&Shape::Object(RESTART_RULE))),
    ("volumeMounts", MOUNTS),
    ("volumeDevices", DEVICES),
    ("livenessProbe", PROBE),
    ("readinessProbe", PROBE),
    ("startupProbe", PROBE),
    ("lifecycle", LIFECYCLE),
    ("terminationMessagePath", Shape::Text),
    ("terminationMessagePolicy", Shape::OneOf(&["FallbackToLogsOnError", "File"])),
    ("imagePullPolicy", PULL_POLICY),
    ("securityContext", Shape::Object(SECURITY)),
    ("stdin", Shape::Bool),
    ("stdinOnce", Shape::Bool),
    ("tty", Shape::Bool),
    ("targetContainerName", Shape::Text),
];

const PORTS: Shape = Shape::Keyed(&["containerPort", "protocol"], &Shape::Object(PORT));
const ENV: Shape =
    Shape::Keyed(&["name"], &Shape::Object(&[("name", Shape::Text), ("value", Shape::Text), ("valueFrom", Shape::Object(ENV_SOURCE))]));
const ENV_FROM: Shape = Shape::List(&Shape::Object(&[("prefix", Shape::Text), ("configMapRef", OPTIONAL), ("secretRef", OPTIONAL)]));
const RESIZE: Shape = Shape::List(&Shape::Object(&[("resourceName", Shape::Text), ("restartPolicy", Shape::Text)]));
const MOUNTS: Shape = Shape::Keyed(&["mountPath"], &Shape::Object(MOUNT));
const DEVICES: Shape = Shape::Keyed(&["devicePath"], &Shape::Object(&[("name", Shape::Text), ("devicePath", Shape::Text)]));
const LIFECYCLE: Shape = Shape::Object(&[("postStart", HANDLER), ("preStop", HANDLER), ("stopSignal", Shape::Text)]);

pub const PULL_POLICY: Shape = Shape::OneOf(&["Always", "IfNotPresent", "Never"]);
const OPTIONAL: Shape = Shape::Object(&[("name", Shape::Text), ("optional", Shape::Bool)]);
const KEY: Shape = Shape::Atomic(&Shape::Object(&[("name", Shape::Text), ("key", Shape::Text), ("optional", Shape::Bool)]));
pub const FIELD_REF: Shape = Shape::Atomic(&Shape::Object(&[("apiVersion", Shape::Text), ("fieldPath", Shape::Text)]));
pub const RESOURCE_REF: Shape =
    Shape::Atomic(&Shape::Object(&[("containerName", Shape::Text), ("resource", Shape::Text), ("divisor", Shape::Amount)]));

const PORT: &[Field] =
    &[("name", Shape::Text), ("containerPort", Shape::Port), ("hostPort", Shape::Port), ("hostIP", Shape::Text), ("protocol", PROTOCOL)];

const ENV_SOURCE: &[Field] = &[
    ("fieldRef", FIELD_REF),
    ("resourceFieldRef", RESOURCE_REF),
    ("configMapKeyRef", KEY),
    ("secretKeyRef", KEY),
    ("fileKeyRef", FILE_KEY),
];

const FILE_KEY: Shape =
    Shape::Atomic(&Shape::Object(&[("volumeName", Shape::Text), ("path", Shape::Text), ("key", Shape::Text), ("optional", Shape::Bool)]));

const RESTART_RULE: &[Field] = &[
    ("action", Shape::Text),
    ("exitCodes", Shape::Object(&[("operator", Shape::Text), ("values", Shape::Replaced(&Shape::Set(&Shape::Int32)))])),
];

const MOUNT: &[Field] = &[
    ("name", Shape::Text),
    ("mountPath", Shape::Text),
    ("readOnly", Shape::Bool),
    ("recursiveReadOnly", Shape::OneOf(&["Disabled", "Enabled", "IfPossible"])),
    ("subPath", Shape::Text),
    ("subPathExpr", Shape::Text),
    ("mountPropagation", Shape::OneOf(&["Bidirectional", "HostToContainer", "None"])),
];

const EXEC: Shape = Shape::Object(&[("command", TEXTS)]);
const TCP: Shape = Shape::Object(&[("port", Shape::PortRef), ("host", Shape::Text)]);
const HTTP: Shape = Shape::Object(&[
    ("path", Shape::Text),
    ("port", Shape::PortRef),
    ("host", Shape::Text),
    ("scheme", Shape::OneOf(&["HTTP", "HTTPS"])),
    ("httpHeaders", Shape::List(&Shape::Object(&[("name", Shape::Text), ("value", Shape::Text)]))),
]);

const PROBE: Shape = Shape::Object(&[
    ("exec", EXEC),
    ("httpGet", HTTP),
    ("tcpSocket", TCP),
    ("grpc", Shape::Object(&[("port", Shape::Port), ("service", Shape::Text)])),
    ("initialDelaySeconds", Shape::Int32),
    ("timeoutSeconds", Shape::Int32),
    ("periodSeconds", Shape::Int32),
    ("successThreshold", Shape::Int32),
    ("failureThreshold", Shape::Int32),
    ("terminationGracePeriodSeconds", Shape::Int64),
]);

const HANDLER: Shape =
    Shape::Object(&[("exec", EXEC), ("httpGet", HTTP), ("tcpSocket", TCP), ("sleep", Shape::Object(&[("seconds", Shape::Int64)]))]);

const PROFILE: Shape = Shape::Object(&[("type", Shape::Text), ("localhostProfile", Shape::Text)]);
const SE_LINUX: Shape = Shape::Object(&[("user", Shape::Text), ("role", Shape::Text), ("type", Shape::Text), ("level", Shape::Text)]);

const SECURITY: &[Field] = &[
    ("runAsUser", Shape::Int64),
    ("runAsGroup", Shape::Int64),
    ("runAsNonRoot", Shape::Bool),
    ("privileged", Shape::Bool),
    ("allowPrivilegeEscalation", Shape::Bool),
    ("readOnlyRootFilesystem", Shape::Bool),
    ("capabilities", Shape::Object(&[("add", TEXTS), ("drop", TEXTS)])),
    ("seccompProfile", PROFILE),
    ("appArmorProfile", PROFILE),
    ("seLinuxOptions", SE_LINUX),
    ("procMount", Shape::OneOf(&["Default", "Unmasked"])),
    ("windowsOptions", Shape::Any),
];

const POD_SECURITY: &[Field] = &[
    ("runAsUser", Shape::Int64),
    ("runAsGroup", Shape::Int64),
    ("runAsNonRoot", Shape::Bool),
    ("fsGroup", Shape::Int64),
    ("fsGroupChangePolicy", Shape::OneOf(&["Always", "OnRootMismatch"])),
    ("supplementalGroups", INTS),
    ("supplementalGroupsPolicy", Shape::OneOf(&["Merge", "Strict"])),
    ("seccompProfile", PROFILE),
    ("appArmorProfile", PROFILE),
    ("seLinuxOptions", SE_LINUX),
    ("seLinuxChangePolicy", Shape::OneOf(&["MountOption", "Recursive"])),
    ("sysctls", Shape::List(&Shape::Object(&[("name", Shape::Text), ("value", Shape::Text)]))),
    ("windowsOptions", Shape::Any),
];
