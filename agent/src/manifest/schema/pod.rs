//! Pod of core/v1, 1.36: every field of the API, also those that a node has no use for.

use super::meta::META;
use super::{AMOUNTS, Field, INTS, PROTOCOL, Shape, TEXT_MAP, TEXTS};

pub const POD: &[Field] =
    &[("apiVersion", Shape::Text), ("kind", Shape::Text), ("metadata", META), ("spec", Shape::Object(SPEC)), ("status", Shape::Any)];

const CONTAINERS: Shape = Shape::List(&Shape::Object(CONTAINER));
const NAMES: Shape = Shape::List(&Shape::Object(&[("name", Shape::Text)]));

const SPEC: &[Field] = &[
    ("containers", CONTAINERS),
    ("initContainers", CONTAINERS),
    ("ephemeralContainers", Shape::List(&Shape::Any)),
    ("volumes", Shape::List(&Shape::Object(VOLUME))),
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
    ("nodeSelector", TEXT_MAP),
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
    ("imagePullSecrets", NAMES),
    ("hostname", Shape::Text),
    ("subdomain", Shape::Text),
    ("hostnameOverride", Shape::Text),
    ("setHostnameAsFQDN", Shape::Bool),
    ("hostAliases", Shape::List(&Shape::Object(&[("ip", Shape::Text), ("hostnames", TEXTS)]))),
    ("affinity", Shape::Any),
    ("tolerations", Shape::List(&Shape::Object(TOLERATION))),
    ("topologySpreadConstraints", Shape::List(&Shape::Any)),
    ("schedulerName", Shape::Text),
    ("schedulingGates", NAMES),
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
    ("resourceClaims", Shape::List(&Shape::Any)),
    ("os", Shape::Object(&[("name", Shape::OneOf(&["linux", "windows"]))])),
];

const TOLERATION: &[Field] = &[
    ("key", Shape::Text),
    ("operator", Shape::Text),
    ("value", Shape::Text),
    ("effect", Shape::Text),
    ("tolerationSeconds", Shape::Int64),
];

const RESOURCES: Shape = Shape::Object(&[
    ("limits", AMOUNTS),
    ("requests", AMOUNTS),
    ("claims", Shape::List(&Shape::Object(&[("name", Shape::Text), ("request", Shape::Text)]))),
]);

const CONTAINER: &[Field] = &[
    ("name", Shape::Text),
    ("image", Shape::Text),
    ("command", TEXTS),
    ("args", TEXTS),
    ("workingDir", Shape::Text),
    ("ports", Shape::List(&Shape::Object(PORT))),
    ("envFrom", Shape::List(&Shape::Object(&[("prefix", Shape::Text), ("configMapRef", OPTIONAL), ("secretRef", OPTIONAL)]))),
    ("env", Shape::List(&Shape::Object(&[("name", Shape::Text), ("value", Shape::Text), ("valueFrom", Shape::Object(ENV_SOURCE))]))),
    ("resources", RESOURCES),
    ("resizePolicy", Shape::List(&Shape::Object(&[("resourceName", Shape::Text), ("restartPolicy", Shape::Text)]))),
    ("restartPolicy", Shape::OneOf(&["Always", "Never", "OnFailure"])),
    ("restartPolicyRules", Shape::List(&Shape::Object(RESTART_RULE))),
    ("volumeMounts", Shape::List(&Shape::Object(MOUNT))),
    ("volumeDevices", Shape::List(&Shape::Object(&[("name", Shape::Text), ("devicePath", Shape::Text)]))),
    ("livenessProbe", PROBE),
    ("readinessProbe", PROBE),
    ("startupProbe", PROBE),
    ("lifecycle", Shape::Object(&[("postStart", HANDLER), ("preStop", HANDLER), ("stopSignal", Shape::Text)])),
    ("terminationMessagePath", Shape::Text),
    ("terminationMessagePolicy", Shape::OneOf(&["FallbackToLogsOnError", "File"])),
    ("imagePullPolicy", PULL_POLICY),
    ("securityContext", Shape::Object(SECURITY)),
    ("stdin", Shape::Bool),
    ("stdinOnce", Shape::Bool),
    ("tty", Shape::Bool),
];

const PULL_POLICY: Shape = Shape::OneOf(&["Always", "IfNotPresent", "Never"]);
const OPTIONAL: Shape = Shape::Object(&[("name", Shape::Text), ("optional", Shape::Bool)]);
const KEY: Shape = Shape::Object(&[("name", Shape::Text), ("key", Shape::Text), ("optional", Shape::Bool)]);
const FIELD_REF: Shape = Shape::Object(&[("apiVersion", Shape::Text), ("fieldPath", Shape::Text)]);
const RESOURCE_REF: Shape = Shape::Object(&[("containerName", Shape::Text), ("resource", Shape::Text), ("divisor", Shape::Amount)]);

const PORT: &[Field] =
    &[("name", Shape::Text), ("containerPort", Shape::Port), ("hostPort", Shape::Port), ("hostIP", Shape::Text), ("protocol", PROTOCOL)];

const ENV_SOURCE: &[Field] = &[
    ("fieldRef", FIELD_REF),
    ("resourceFieldRef", RESOURCE_REF),
    ("configMapKeyRef", KEY),
    ("secretKeyRef", KEY),
    ("fileKeyRef", Shape::Object(&[("volumeName", Shape::Text), ("path", Shape::Text), ("key", Shape::Text), ("optional", Shape::Bool)])),
];

const RESTART_RULE: &[Field] =
    &[("action", Shape::Text), ("exitCodes", Shape::Object(&[("operator", Shape::Text), ("values", Shape::List(&Shape::Int32))]))];

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

const ITEMS: Shape = Shape::List(&Shape::Object(&[("key", Shape::Text), ("path", Shape::Text), ("mode", Shape::Mode)]));
const DOWNWARD_ITEMS: Shape = Shape::List(&Shape::Object(&[
    ("path", Shape::Text),
    ("fieldRef", FIELD_REF),
    ("resourceFieldRef", RESOURCE_REF),
    ("mode", Shape::Mode),
]));
const PROJECTED_KEYS: Shape = Shape::Object(&[("name", Shape::Text), ("items", ITEMS), ("optional", Shape::Bool)]);

const VOLUME: &[Field] = &[
    ("name", Shape::Text),
    ("emptyDir", Shape::Object(&[("medium", Shape::Text), ("sizeLimit", Shape::Amount)])),
    ("hostPath", Shape::Object(&[("path", Shape::Text), ("type", Shape::Text)])),
    ("configMap", Shape::Object(&[("name", Shape::Text), ("items", ITEMS), ("defaultMode", Shape::Mode), ("optional", Shape::Bool)])),
    ("secret", Shape::Object(&[("secretName", Shape::Text), ("items", ITEMS), ("defaultMode", Shape::Mode), ("optional", Shape::Bool)])),
    ("downwardAPI", Shape::Object(&[("items", DOWNWARD_ITEMS), ("defaultMode", Shape::Mode)])),
    (
        "projected",
        Shape::Object(&[
            (
                "sources",
                Shape::List(&Shape::Object(&[
                    ("configMap", PROJECTED_KEYS),
                    ("secret", PROJECTED_KEYS),
                    ("downwardAPI", Shape::Object(&[("items", DOWNWARD_ITEMS)])),
                    (
                        "serviceAccountToken",
                        Shape::Object(&[("audience", Shape::Text), ("expirationSeconds", Shape::Int64), ("path", Shape::Text)]),
                    ),
                    ("clusterTrustBundle", Shape::Any),
                    ("podCertificate", Shape::Any),
                ])),
            ),
            ("defaultMode", Shape::Mode),
        ]),
    ),
    ("image", Shape::Object(&[("reference", Shape::Text), ("pullPolicy", PULL_POLICY)])),
    ("awsElasticBlockStore", Shape::Any),
    ("azureDisk", Shape::Any),
    ("azureFile", Shape::Any),
    ("cephfs", Shape::Any),
    ("cinder", Shape::Any),
    ("csi", Shape::Any),
    ("ephemeral", Shape::Any),
    ("fc", Shape::Any),
    ("flexVolume", Shape::Any),
    ("flocker", Shape::Any),
    ("gcePersistentDisk", Shape::Any),
    ("gitRepo", Shape::Any),
    ("glusterfs", Shape::Any),
    ("iscsi", Shape::Any),
    ("nfs", Shape::Any),
    ("persistentVolumeClaim", Shape::Any),
    ("photonPersistentDisk", Shape::Any),
    ("portworxVolume", Shape::Any),
    ("quobyte", Shape::Any),
    ("rbd", Shape::Any),
    ("scaleIO", Shape::Any),
    ("storageos", Shape::Any),
    ("vsphereVolume", Shape::Any),
];
