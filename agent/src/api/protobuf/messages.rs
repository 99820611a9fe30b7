//! The messages of Kubernetes 1.36 that clients send: the number of each field, its name in JSON and what it is.
//!
//! Data, as `generated.proto` of each group numbers it: a number never changes its meaning. `kept` marks what Go
//! has as a pointer or without `omitempty`. To add a kind, add its messages and its row in `KINDS`.

use super::Kind::{Bool, Bytes, Int, IntOrString, MicroTime, Of, Quantity, Raw, Text, Texts, Time};
use super::{Field, Kind, Message, Rule};

/// `apiVersion`, `kind` and the message of each kind.
pub static KINDS: &[(&str, &str, &Message)] = &[
    ("v1", "Binding", &BINDING),
    ("v1", "ConfigMap", &CONFIG_MAP),
    ("v1", "Endpoints", &ENDPOINTS),
    ("v1", "Event", &EVENT),
    ("v1", "Namespace", &NAMESPACE),
    ("v1", "Node", &NODE),
    ("v1", "PersistentVolume", &PERSISTENT_VOLUME),
    ("v1", "PersistentVolumeClaim", &PERSISTENT_VOLUME_CLAIM),
    ("v1", "Pod", &POD),
    ("v1", "Secret", &SECRET),
    ("v1", "Service", &SERVICE),
    ("v1", "ServiceAccount", &SERVICE_ACCOUNT),
    ("authentication.k8s.io/v1", "SelfSubjectReview", &SELF_SUBJECT_REVIEW),
    ("authentication.k8s.io/v1", "TokenRequest", &TOKEN_REQUEST),
    ("authentication.k8s.io/v1", "TokenReview", &TOKEN_REVIEW),
    ("authorization.k8s.io/v1", "LocalSubjectAccessReview", &LOCAL_SUBJECT_ACCESS_REVIEW),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", &SELF_SUBJECT_ACCESS_REVIEW),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview", &SELF_SUBJECT_RULES_REVIEW),
    ("authorization.k8s.io/v1", "SubjectAccessReview", &SUBJECT_ACCESS_REVIEW),
    ("certificates.k8s.io/v1", "CertificateSigningRequest", &CERTIFICATE_SIGNING_REQUEST),
    ("coordination.k8s.io/v1", "Lease", &LEASE),
    ("discovery.k8s.io/v1", "EndpointSlice", &ENDPOINT_SLICE),
    ("events.k8s.io/v1", "Event", &EVENTS_EVENT),
    ("networking.k8s.io/v1", "ServiceCIDR", &SERVICE_CIDR),
    ("node.k8s.io/v1", "RuntimeClass", &RUNTIME_CLASS),
    ("policy/v1", "Eviction", &EVICTION),
    ("storage.k8s.io/v1", "CSIDriver", &CSI_DRIVER),
    ("storage.k8s.io/v1", "CSINode", &CSI_NODE),
    ("storage.k8s.io/v1", "StorageClass", &STORAGE_CLASS),
    ("storage.k8s.io/v1", "VolumeAttachment", &VOLUME_ATTACHMENT),
];

const fn one(kind: Kind) -> (Rule, Kind) {
    (Rule::One, kind)
}

const fn kept(kind: Kind) -> (Rule, Kind) {
    (Rule::Kept, kind)
}

const fn many(kind: Kind) -> (Rule, Kind) {
    (Rule::Many, kind)
}

const fn map(kind: Kind) -> (Rule, Kind) {
    (Rule::Map, kind)
}

const fn inline(kind: Kind) -> (Rule, Kind) {
    (Rule::Inline, kind)
}

macro_rules! messages {
    ($($name:ident { $($number:literal $json:literal $what:expr),* })*) => {
        $(pub static $name: Message = Message(&[$({
            const WHAT: (Rule, Kind) = $what;
            Field { number: $number, json: $json, rule: WHAT.0, kind: WHAT.1 }
        }),*]);)*
    };
}

messages! {
    AFFINITY { 1 "nodeAffinity" kept(Of(&NODE_AFFINITY)), 2 "podAffinity" kept(Of(&POD_AFFINITY)),
        3 "podAntiAffinity" kept(Of(&POD_ANTI_AFFINITY)) }
    APP_ARMOR_PROFILE { 1 "type" kept(Text), 2 "localhostProfile" kept(Text) }
    ATTACHED_VOLUME { 1 "name" kept(Text), 2 "devicePath" kept(Text) }
    AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE { 1 "volumeID" kept(Text), 2 "fsType" one(Text), 3 "partition" one(Int), 4 "readOnly" one(Bool) }
    AZURE_DISK_VOLUME_SOURCE { 1 "diskName" kept(Text), 2 "diskURI" kept(Text), 3 "cachingMode" kept(Text), 4 "fsType" kept(Text),
        5 "readOnly" kept(Bool), 6 "kind" kept(Text) }
    AZURE_FILE_PERSISTENT_VOLUME_SOURCE { 1 "secretName" kept(Text), 2 "shareName" kept(Text), 3 "readOnly" one(Bool),
        4 "secretNamespace" kept(Text) }
    AZURE_FILE_VOLUME_SOURCE { 1 "secretName" kept(Text), 2 "shareName" kept(Text), 3 "readOnly" one(Bool) }
    BINDING { 1 "metadata" one(Of(&OBJECT_META)), 2 "target" one(Of(&OBJECT_REFERENCE)) }
    BOUND_OBJECT_REFERENCE { 1 "kind" one(Text), 2 "apiVersion" one(Text), 3 "name" one(Text), 4 "uid" one(Text) }
    CAPABILITIES { 1 "add" many(Text), 2 "drop" many(Text) }
    CEPH_FS_PERSISTENT_VOLUME_SOURCE { 1 "monitors" many(Text), 2 "path" one(Text), 3 "user" one(Text), 4 "secretFile" one(Text),
        5 "secretRef" kept(Of(&SECRET_REFERENCE)), 6 "readOnly" one(Bool) }
    CEPH_FS_VOLUME_SOURCE { 1 "monitors" many(Text), 2 "path" one(Text), 3 "user" one(Text), 4 "secretFile" one(Text),
        5 "secretRef" kept(Of(&LOCAL_OBJECT_REFERENCE)), 6 "readOnly" one(Bool) }
    CERTIFICATE_SIGNING_REQUEST { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&CERTIFICATE_SIGNING_REQUEST_SPEC)),
        3 "status" one(Of(&CERTIFICATE_SIGNING_REQUEST_STATUS)) }
    CERTIFICATE_SIGNING_REQUEST_CONDITION { 1 "type" kept(Text), 2 "reason" one(Text), 3 "message" one(Text),
        4 "lastUpdateTime" one(Time), 5 "lastTransitionTime" one(Time), 6 "status" kept(Text) }
    CERTIFICATE_SIGNING_REQUEST_SPEC { 1 "request" one(Bytes), 2 "username" one(Text), 3 "uid" one(Text), 4 "groups" many(Text),
        5 "usages" many(Text), 6 "extra" map(Texts), 7 "signerName" kept(Text), 8 "expirationSeconds" kept(Int) }
    CERTIFICATE_SIGNING_REQUEST_STATUS { 1 "conditions" many(Of(&CERTIFICATE_SIGNING_REQUEST_CONDITION)), 2 "certificate" one(Bytes) }
    CINDER_PERSISTENT_VOLUME_SOURCE { 1 "volumeID" kept(Text), 2 "fsType" one(Text), 3 "readOnly" one(Bool),
        4 "secretRef" kept(Of(&SECRET_REFERENCE)) }
    CINDER_VOLUME_SOURCE { 1 "volumeID" kept(Text), 2 "fsType" one(Text), 3 "readOnly" one(Bool),
        4 "secretRef" kept(Of(&LOCAL_OBJECT_REFERENCE)) }
    CLIENT_IP_CONFIG { 1 "timeoutSeconds" kept(Int) }
    CLUSTER_TRUST_BUNDLE_PROJECTION { 1 "name" kept(Text), 2 "signerName" kept(Text), 3 "labelSelector" kept(Of(&LABEL_SELECTOR)),
        4 "path" kept(Text), 5 "optional" kept(Bool) }
    CONDITION { 1 "type" kept(Text), 2 "status" kept(Text), 3 "observedGeneration" one(Int), 4 "lastTransitionTime" one(Time),
        5 "reason" kept(Text), 6 "message" kept(Text) }
    CONFIG_MAP { 1 "metadata" one(Of(&OBJECT_META)), 2 "data" map(Text), 3 "binaryData" map(Bytes), 4 "immutable" kept(Bool) }
    CONFIG_MAP_ENV_SOURCE { 1 "" inline(Of(&LOCAL_OBJECT_REFERENCE)), 2 "optional" kept(Bool) }
    CONFIG_MAP_KEY_SELECTOR { 1 "" inline(Of(&LOCAL_OBJECT_REFERENCE)), 2 "key" kept(Text), 3 "optional" kept(Bool) }
    CONFIG_MAP_NODE_CONFIG_SOURCE { 1 "namespace" kept(Text), 2 "name" kept(Text), 3 "uid" one(Text), 4 "resourceVersion" one(Text),
        5 "kubeletConfigKey" kept(Text) }
    CONFIG_MAP_PROJECTION { 1 "" inline(Of(&LOCAL_OBJECT_REFERENCE)), 2 "items" many(Of(&KEY_TO_PATH)), 4 "optional" kept(Bool) }
    CONFIG_MAP_VOLUME_SOURCE { 1 "" inline(Of(&LOCAL_OBJECT_REFERENCE)), 2 "items" many(Of(&KEY_TO_PATH)), 3 "defaultMode" kept(Int),
        4 "optional" kept(Bool) }
    CONTAINER { 1 "name" kept(Text), 2 "image" one(Text), 3 "command" many(Text), 4 "args" many(Text), 5 "workingDir" one(Text),
        6 "ports" many(Of(&CONTAINER_PORT)), 7 "env" many(Of(&ENV_VAR)), 8 "resources" one(Of(&RESOURCE_REQUIREMENTS)),
        9 "volumeMounts" many(Of(&VOLUME_MOUNT)), 10 "livenessProbe" kept(Of(&PROBE)), 11 "readinessProbe" kept(Of(&PROBE)),
        12 "lifecycle" kept(Of(&LIFECYCLE)), 13 "terminationMessagePath" one(Text), 14 "imagePullPolicy" one(Text),
        15 "securityContext" kept(Of(&SECURITY_CONTEXT)), 16 "stdin" one(Bool), 17 "stdinOnce" one(Bool), 18 "tty" one(Bool),
        19 "envFrom" many(Of(&ENV_FROM_SOURCE)), 20 "terminationMessagePolicy" one(Text), 21 "volumeDevices" many(Of(&VOLUME_DEVICE)),
        22 "startupProbe" kept(Of(&PROBE)), 23 "resizePolicy" many(Of(&CONTAINER_RESIZE_POLICY)), 24 "restartPolicy" kept(Text),
        25 "restartPolicyRules" many(Of(&CONTAINER_RESTART_RULE)) }
    CONTAINER_EXTENDED_RESOURCE_REQUEST { 1 "containerName" kept(Text), 2 "resourceName" kept(Text), 3 "requestName" kept(Text) }
    CONTAINER_IMAGE { 1 "names" many(Text), 2 "sizeBytes" one(Int) }
    CONTAINER_PORT { 1 "name" one(Text), 2 "hostPort" one(Int), 3 "containerPort" kept(Int), 4 "protocol" one(Text), 5 "hostIP" one(Text) }
    CONTAINER_RESIZE_POLICY { 1 "resourceName" kept(Text), 2 "restartPolicy" kept(Text) }
    CONTAINER_RESTART_RULE { 1 "action" one(Text), 2 "exitCodes" kept(Of(&CONTAINER_RESTART_RULE_ON_EXIT_CODES)) }
    CONTAINER_RESTART_RULE_ON_EXIT_CODES { 1 "operator" one(Text), 2 "values" many(Int) }
    CONTAINER_STATE { 1 "waiting" kept(Of(&CONTAINER_STATE_WAITING)), 2 "running" kept(Of(&CONTAINER_STATE_RUNNING)),
        3 "terminated" kept(Of(&CONTAINER_STATE_TERMINATED)) }
    CONTAINER_STATE_RUNNING { 1 "startedAt" one(Time) }
    CONTAINER_STATE_TERMINATED { 1 "exitCode" kept(Int), 2 "signal" one(Int), 3 "reason" one(Text), 4 "message" one(Text),
        5 "startedAt" one(Time), 6 "finishedAt" one(Time), 7 "containerID" one(Text) }
    CONTAINER_STATE_WAITING { 1 "reason" one(Text), 2 "message" one(Text) }
    CONTAINER_STATUS { 1 "name" kept(Text), 2 "state" one(Of(&CONTAINER_STATE)), 3 "lastState" one(Of(&CONTAINER_STATE)),
        4 "ready" kept(Bool), 5 "restartCount" kept(Int), 6 "image" kept(Text), 7 "imageID" kept(Text), 8 "containerID" one(Text),
        9 "started" kept(Bool), 10 "allocatedResources" map(Quantity), 11 "resources" kept(Of(&RESOURCE_REQUIREMENTS)),
        12 "volumeMounts" many(Of(&VOLUME_MOUNT_STATUS)), 13 "user" kept(Of(&CONTAINER_USER)),
        14 "allocatedResourcesStatus" many(Of(&RESOURCE_STATUS)), 15 "stopSignal" kept(Text) }
    CONTAINER_USER { 1 "linux" kept(Of(&LINUX_CONTAINER_USER)) }
    CSI_DRIVER { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&CSI_DRIVER_SPEC)) }
    CSI_DRIVER_SPEC { 1 "attachRequired" kept(Bool), 2 "podInfoOnMount" kept(Bool), 3 "volumeLifecycleModes" many(Text),
        4 "storageCapacity" kept(Bool), 5 "fsGroupPolicy" kept(Text), 6 "tokenRequests" many(Of(&STORAGE_TOKEN_REQUEST)),
        7 "requiresRepublish" kept(Bool), 8 "seLinuxMount" kept(Bool), 9 "nodeAllocatableUpdatePeriodSeconds" kept(Int),
        10 "serviceAccountTokenInSecrets" kept(Bool), 11 "preventPodSchedulingIfMissing" kept(Bool) }
    CSI_NODE { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&CSI_NODE_SPEC)) }
    CSI_NODE_DRIVER { 1 "name" kept(Text), 2 "nodeID" kept(Text), 3 "topologyKeys" many(Text),
        4 "allocatable" kept(Of(&VOLUME_NODE_RESOURCES)) }
    CSI_NODE_SPEC { 1 "drivers" many(Of(&CSI_NODE_DRIVER)) }
    CSI_PERSISTENT_VOLUME_SOURCE { 1 "driver" kept(Text), 2 "volumeHandle" kept(Text), 3 "readOnly" one(Bool), 4 "fsType" one(Text),
        5 "volumeAttributes" map(Text), 6 "controllerPublishSecretRef" kept(Of(&SECRET_REFERENCE)),
        7 "nodeStageSecretRef" kept(Of(&SECRET_REFERENCE)), 8 "nodePublishSecretRef" kept(Of(&SECRET_REFERENCE)),
        9 "controllerExpandSecretRef" kept(Of(&SECRET_REFERENCE)), 10 "nodeExpandSecretRef" kept(Of(&SECRET_REFERENCE)) }
    CSI_VOLUME_SOURCE { 1 "driver" kept(Text), 2 "readOnly" kept(Bool), 3 "fsType" kept(Text), 4 "volumeAttributes" map(Text),
        5 "nodePublishSecretRef" kept(Of(&LOCAL_OBJECT_REFERENCE)) }
    DAEMON_ENDPOINT { 1 "Port" kept(Int) }
    DELETE_OPTIONS { 1 "gracePeriodSeconds" kept(Int), 2 "preconditions" kept(Of(&PRECONDITIONS)), 3 "orphanDependents" kept(Bool),
        4 "propagationPolicy" kept(Text), 5 "dryRun" many(Text), 6 "ignoreStoreReadErrorWithClusterBreakingPotential" kept(Bool) }
    DISCOVERY_ENDPOINT_PORT { 1 "name" kept(Text), 2 "protocol" kept(Text), 3 "port" kept(Int), 4 "appProtocol" kept(Text) }
    DOWNWARD_API_PROJECTION { 1 "items" many(Of(&DOWNWARD_API_VOLUME_FILE)) }
    DOWNWARD_API_VOLUME_FILE { 1 "path" kept(Text), 2 "fieldRef" kept(Of(&OBJECT_FIELD_SELECTOR)),
        3 "resourceFieldRef" kept(Of(&RESOURCE_FIELD_SELECTOR)), 4 "mode" kept(Int) }
    DOWNWARD_API_VOLUME_SOURCE { 1 "items" many(Of(&DOWNWARD_API_VOLUME_FILE)), 2 "defaultMode" kept(Int) }
    EMPTY_DIR_VOLUME_SOURCE { 1 "medium" one(Text), 2 "sizeLimit" kept(Quantity) }
    ENDPOINT { 1 "addresses" many(Text), 2 "conditions" one(Of(&ENDPOINT_CONDITIONS)), 3 "hostname" kept(Text),
        4 "targetRef" kept(Of(&OBJECT_REFERENCE)), 5 "deprecatedTopology" map(Text), 6 "nodeName" kept(Text), 7 "zone" kept(Text),
        8 "hints" kept(Of(&ENDPOINT_HINTS)) }
    ENDPOINTS { 1 "metadata" one(Of(&OBJECT_META)), 2 "subsets" many(Of(&ENDPOINT_SUBSET)) }
    ENDPOINT_ADDRESS { 1 "ip" kept(Text), 2 "targetRef" kept(Of(&OBJECT_REFERENCE)), 3 "hostname" one(Text), 4 "nodeName" kept(Text) }
    ENDPOINT_CONDITIONS { 1 "ready" kept(Bool), 2 "serving" kept(Bool), 3 "terminating" kept(Bool) }
    ENDPOINT_HINTS { 1 "forZones" many(Of(&FOR_ZONE)), 2 "forNodes" many(Of(&FOR_NODE)) }
    ENDPOINT_PORT { 1 "name" one(Text), 2 "port" kept(Int), 3 "protocol" one(Text), 4 "appProtocol" kept(Text) }
    ENDPOINT_SLICE { 1 "metadata" one(Of(&OBJECT_META)), 2 "endpoints" many(Of(&ENDPOINT)), 3 "ports" many(Of(&DISCOVERY_ENDPOINT_PORT)),
        4 "addressType" kept(Text) }
    ENDPOINT_SUBSET { 1 "addresses" many(Of(&ENDPOINT_ADDRESS)), 2 "notReadyAddresses" many(Of(&ENDPOINT_ADDRESS)),
        3 "ports" many(Of(&ENDPOINT_PORT)) }
    ENV_FROM_SOURCE { 1 "prefix" one(Text), 2 "configMapRef" kept(Of(&CONFIG_MAP_ENV_SOURCE)), 3 "secretRef" kept(Of(&SECRET_ENV_SOURCE)) }
    ENV_VAR { 1 "name" kept(Text), 2 "value" one(Text), 3 "valueFrom" kept(Of(&ENV_VAR_SOURCE)) }
    ENV_VAR_SOURCE { 1 "fieldRef" kept(Of(&OBJECT_FIELD_SELECTOR)), 2 "resourceFieldRef" kept(Of(&RESOURCE_FIELD_SELECTOR)),
        3 "configMapKeyRef" kept(Of(&CONFIG_MAP_KEY_SELECTOR)), 4 "secretKeyRef" kept(Of(&SECRET_KEY_SELECTOR)),
        5 "fileKeyRef" kept(Of(&FILE_KEY_SELECTOR)) }
    EPHEMERAL_CONTAINER { 1 "" inline(Of(&EPHEMERAL_CONTAINER_COMMON)), 2 "targetContainerName" one(Text) }
    EPHEMERAL_CONTAINER_COMMON { 1 "name" kept(Text), 2 "image" one(Text), 3 "command" many(Text), 4 "args" many(Text),
        5 "workingDir" one(Text), 6 "ports" many(Of(&CONTAINER_PORT)), 7 "env" many(Of(&ENV_VAR)),
        8 "resources" one(Of(&RESOURCE_REQUIREMENTS)), 9 "volumeMounts" many(Of(&VOLUME_MOUNT)), 10 "livenessProbe" kept(Of(&PROBE)),
        11 "readinessProbe" kept(Of(&PROBE)), 12 "lifecycle" kept(Of(&LIFECYCLE)), 13 "terminationMessagePath" one(Text),
        14 "imagePullPolicy" one(Text), 15 "securityContext" kept(Of(&SECURITY_CONTEXT)), 16 "stdin" one(Bool), 17 "stdinOnce" one(Bool),
        18 "tty" one(Bool), 19 "envFrom" many(Of(&ENV_FROM_SOURCE)), 20 "terminationMessagePolicy" one(Text),
        21 "volumeDevices" many(Of(&VOLUME_DEVICE)), 22 "startupProbe" kept(Of(&PROBE)),
        23 "resizePolicy" many(Of(&CONTAINER_RESIZE_POLICY)), 24 "restartPolicy" kept(Text),
        25 "restartPolicyRules" many(Of(&CONTAINER_RESTART_RULE)) }
    EPHEMERAL_VOLUME_SOURCE { 1 "volumeClaimTemplate" kept(Of(&PERSISTENT_VOLUME_CLAIM_TEMPLATE)) }
    EVENT { 1 "metadata" one(Of(&OBJECT_META)), 2 "involvedObject" one(Of(&OBJECT_REFERENCE)), 3 "reason" one(Text),
        4 "message" one(Text), 5 "source" one(Of(&EVENT_SOURCE)), 6 "firstTimestamp" one(Time), 7 "lastTimestamp" one(Time),
        8 "count" one(Int), 9 "type" one(Text), 10 "eventTime" one(MicroTime), 11 "series" kept(Of(&EVENT_SERIES)), 12 "action" one(Text),
        13 "related" kept(Of(&OBJECT_REFERENCE)), 14 "reportingComponent" kept(Text), 15 "reportingInstance" kept(Text) }
    EVENTS_EVENT { 1 "metadata" one(Of(&OBJECT_META)), 2 "eventTime" one(MicroTime), 3 "series" kept(Of(&EVENTS_EVENT_SERIES)),
        4 "reportingController" one(Text), 5 "reportingInstance" one(Text), 6 "action" one(Text), 7 "reason" one(Text),
        8 "regarding" one(Of(&OBJECT_REFERENCE)), 9 "related" kept(Of(&OBJECT_REFERENCE)), 10 "note" one(Text), 11 "type" one(Text),
        12 "deprecatedSource" one(Of(&EVENT_SOURCE)), 13 "deprecatedFirstTimestamp" one(Time), 14 "deprecatedLastTimestamp" one(Time),
        15 "deprecatedCount" one(Int) }
    EVENTS_EVENT_SERIES { 1 "count" kept(Int), 2 "lastObservedTime" one(MicroTime) }
    EVENT_SERIES { 1 "count" one(Int), 2 "lastObservedTime" one(MicroTime) }
    EVENT_SOURCE { 1 "component" one(Text), 2 "host" one(Text) }
    EVICTION { 1 "metadata" one(Of(&OBJECT_META)), 2 "deleteOptions" kept(Of(&DELETE_OPTIONS)) }
    EXEC_ACTION { 1 "command" many(Text) }
    FC_VOLUME_SOURCE { 1 "targetWWNs" many(Text), 2 "lun" kept(Int), 3 "fsType" one(Text), 4 "readOnly" one(Bool), 5 "wwids" many(Text) }
    FIELD_SELECTOR_ATTRIBUTES { 1 "rawSelector" one(Text), 2 "requirements" many(Of(&FIELD_SELECTOR_REQUIREMENT)) }
    FIELD_SELECTOR_REQUIREMENT { 1 "key" kept(Text), 2 "operator" kept(Text), 3 "values" many(Text) }
    FILE_KEY_SELECTOR { 1 "volumeName" kept(Text), 2 "path" kept(Text), 3 "key" kept(Text), 4 "optional" kept(Bool) }
    FLEX_PERSISTENT_VOLUME_SOURCE { 1 "driver" kept(Text), 2 "fsType" one(Text), 3 "secretRef" kept(Of(&SECRET_REFERENCE)),
        4 "readOnly" one(Bool), 5 "options" map(Text) }
    FLEX_VOLUME_SOURCE { 1 "driver" kept(Text), 2 "fsType" one(Text), 3 "secretRef" kept(Of(&LOCAL_OBJECT_REFERENCE)),
        4 "readOnly" one(Bool), 5 "options" map(Text) }
    FLOCKER_VOLUME_SOURCE { 1 "datasetName" one(Text), 2 "datasetUUID" one(Text) }
    FOR_NODE { 1 "name" kept(Text) }
    FOR_ZONE { 1 "name" kept(Text) }
    GCE_PERSISTENT_DISK_VOLUME_SOURCE { 1 "pdName" kept(Text), 2 "fsType" one(Text), 3 "partition" one(Int), 4 "readOnly" one(Bool) }
    GIT_REPO_VOLUME_SOURCE { 1 "repository" kept(Text), 2 "revision" one(Text), 3 "directory" one(Text) }
    GLUSTERFS_PERSISTENT_VOLUME_SOURCE { 1 "endpoints" kept(Text), 2 "path" kept(Text), 3 "readOnly" one(Bool),
        4 "endpointsNamespace" kept(Text) }
    GLUSTERFS_VOLUME_SOURCE { 1 "endpoints" kept(Text), 2 "path" kept(Text), 3 "readOnly" one(Bool) }
    GRPC_ACTION { 1 "port" kept(Int), 2 "service" kept(Text) }
    HOST_ALIAS { 1 "ip" kept(Text), 2 "hostnames" many(Text) }
    HOST_IP { 1 "ip" kept(Text) }
    HOST_PATH_VOLUME_SOURCE { 1 "path" kept(Text), 2 "type" kept(Text) }
    HTTP_GET_ACTION { 1 "path" one(Text), 2 "port" one(IntOrString), 3 "host" one(Text), 4 "scheme" one(Text),
        5 "httpHeaders" many(Of(&HTTP_HEADER)) }
    HTTP_HEADER { 1 "name" kept(Text), 2 "value" kept(Text) }
    IMAGE_VOLUME_SOURCE { 1 "reference" one(Text), 2 "pullPolicy" one(Text) }
    IMAGE_VOLUME_STATUS { 1 "imageRef" one(Text) }
    ISCSI_PERSISTENT_VOLUME_SOURCE { 1 "targetPortal" kept(Text), 2 "iqn" kept(Text), 3 "lun" kept(Int), 4 "iscsiInterface" one(Text),
        5 "fsType" one(Text), 6 "readOnly" one(Bool), 7 "portals" many(Text), 8 "chapAuthDiscovery" one(Bool),
        10 "secretRef" kept(Of(&SECRET_REFERENCE)), 11 "chapAuthSession" one(Bool), 12 "initiatorName" kept(Text) }
    ISCSI_VOLUME_SOURCE { 1 "targetPortal" kept(Text), 2 "iqn" kept(Text), 3 "lun" kept(Int), 4 "iscsiInterface" one(Text),
        5 "fsType" one(Text), 6 "readOnly" one(Bool), 7 "portals" many(Text), 8 "chapAuthDiscovery" one(Bool),
        10 "secretRef" kept(Of(&LOCAL_OBJECT_REFERENCE)), 11 "chapAuthSession" one(Bool), 12 "initiatorName" kept(Text) }
    KEY_TO_PATH { 1 "key" kept(Text), 2 "path" kept(Text), 3 "mode" kept(Int) }
    LABEL_SELECTOR { 1 "matchLabels" map(Text), 2 "matchExpressions" many(Of(&LABEL_SELECTOR_REQUIREMENT)) }
    LABEL_SELECTOR_ATTRIBUTES { 1 "rawSelector" one(Text), 2 "requirements" many(Of(&LABEL_SELECTOR_REQUIREMENT)) }
    LABEL_SELECTOR_REQUIREMENT { 1 "key" kept(Text), 2 "operator" kept(Text), 3 "values" many(Text) }
    LEASE { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&LEASE_SPEC)) }
    LEASE_SPEC { 1 "holderIdentity" kept(Text), 2 "leaseDurationSeconds" kept(Int), 3 "acquireTime" kept(MicroTime),
        4 "renewTime" kept(MicroTime), 5 "leaseTransitions" kept(Int), 6 "strategy" kept(Text), 7 "preferredHolder" kept(Text) }
    LIFECYCLE { 1 "postStart" kept(Of(&LIFECYCLE_HANDLER)), 2 "preStop" kept(Of(&LIFECYCLE_HANDLER)), 3 "stopSignal" kept(Text) }
    LIFECYCLE_HANDLER { 1 "exec" kept(Of(&EXEC_ACTION)), 2 "httpGet" kept(Of(&HTTP_GET_ACTION)),
        3 "tcpSocket" kept(Of(&TCP_SOCKET_ACTION)), 4 "sleep" kept(Of(&SLEEP_ACTION)) }
    LINUX_CONTAINER_USER { 1 "uid" kept(Int), 2 "gid" kept(Int), 3 "supplementalGroups" many(Int) }
    LOAD_BALANCER_INGRESS { 1 "ip" one(Text), 2 "hostname" one(Text), 3 "ipMode" kept(Text), 4 "ports" many(Of(&PORT_STATUS)) }
    LOAD_BALANCER_STATUS { 1 "ingress" many(Of(&LOAD_BALANCER_INGRESS)) }
    LOCAL_OBJECT_REFERENCE { 1 "name" one(Text) }
    LOCAL_SUBJECT_ACCESS_REVIEW { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&SUBJECT_ACCESS_REVIEW_SPEC)),
        3 "status" one(Of(&SUBJECT_ACCESS_REVIEW_STATUS)) }
    LOCAL_VOLUME_SOURCE { 1 "path" kept(Text), 2 "fsType" kept(Text) }
    MANAGED_FIELDS_ENTRY { 1 "manager" one(Text), 2 "operation" one(Text), 3 "apiVersion" one(Text), 4 "time" kept(Time),
        6 "fieldsType" one(Text), 7 "fieldsV1" kept(Raw), 8 "subresource" one(Text) }
    MODIFY_VOLUME_STATUS { 1 "targetVolumeAttributesClassName" one(Text), 2 "status" kept(Text) }
    NAMESPACE { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&NAMESPACE_SPEC)), 3 "status" one(Of(&NAMESPACE_STATUS)) }
    NAMESPACE_CONDITION { 1 "type" kept(Text), 2 "status" kept(Text), 4 "lastTransitionTime" one(Time), 5 "reason" one(Text),
        6 "message" one(Text) }
    NAMESPACE_SPEC { 1 "finalizers" many(Text) }
    NAMESPACE_STATUS { 1 "phase" one(Text), 2 "conditions" many(Of(&NAMESPACE_CONDITION)) }
    NFS_VOLUME_SOURCE { 1 "server" kept(Text), 2 "path" kept(Text), 3 "readOnly" one(Bool) }
    NODE { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&NODE_SPEC)), 3 "status" one(Of(&NODE_STATUS)) }
    NODE_ADDRESS { 1 "type" kept(Text), 2 "address" kept(Text) }
    NODE_AFFINITY { 1 "requiredDuringSchedulingIgnoredDuringExecution" kept(Of(&NODE_SELECTOR)),
        2 "preferredDuringSchedulingIgnoredDuringExecution" many(Of(&PREFERRED_SCHEDULING_TERM)) }
    NODE_ALLOCATABLE_RESOURCE_CLAIM_STATUS { 1 "resourceClaimName" kept(Text), 2 "containers" many(Text), 3 "resources" map(Quantity) }
    NODE_CONDITION { 1 "type" kept(Text), 2 "status" kept(Text), 3 "lastHeartbeatTime" one(Time), 4 "lastTransitionTime" one(Time),
        5 "reason" one(Text), 6 "message" one(Text) }
    NODE_CONFIG_SOURCE { 2 "configMap" kept(Of(&CONFIG_MAP_NODE_CONFIG_SOURCE)) }
    NODE_CONFIG_STATUS { 1 "assigned" kept(Of(&NODE_CONFIG_SOURCE)), 2 "active" kept(Of(&NODE_CONFIG_SOURCE)),
        3 "lastKnownGood" kept(Of(&NODE_CONFIG_SOURCE)), 4 "error" one(Text) }
    NODE_DAEMON_ENDPOINTS { 1 "kubeletEndpoint" one(Of(&DAEMON_ENDPOINT)) }
    NODE_FEATURES { 1 "supplementalGroupsPolicy" kept(Bool) }
    NODE_RUNTIME_HANDLER { 1 "name" kept(Text), 2 "features" kept(Of(&NODE_RUNTIME_HANDLER_FEATURES)) }
    NODE_RUNTIME_HANDLER_FEATURES { 1 "recursiveReadOnlyMounts" kept(Bool), 2 "userNamespaces" kept(Bool) }
    NODE_SELECTOR { 1 "nodeSelectorTerms" many(Of(&NODE_SELECTOR_TERM)) }
    NODE_SELECTOR_REQUIREMENT { 1 "key" kept(Text), 2 "operator" kept(Text), 3 "values" many(Text) }
    NODE_SELECTOR_TERM { 1 "matchExpressions" many(Of(&NODE_SELECTOR_REQUIREMENT)), 2 "matchFields" many(Of(&NODE_SELECTOR_REQUIREMENT)) }
    NODE_SPEC { 1 "podCIDR" one(Text), 2 "externalID" one(Text), 3 "providerID" one(Text), 4 "unschedulable" one(Bool),
        5 "taints" many(Of(&TAINT)), 6 "configSource" kept(Of(&NODE_CONFIG_SOURCE)), 7 "podCIDRs" many(Text) }
    NODE_STATUS { 1 "capacity" map(Quantity), 2 "allocatable" map(Quantity), 3 "phase" one(Text),
        4 "conditions" many(Of(&NODE_CONDITION)), 5 "addresses" many(Of(&NODE_ADDRESS)),
        6 "daemonEndpoints" one(Of(&NODE_DAEMON_ENDPOINTS)), 7 "nodeInfo" one(Of(&NODE_SYSTEM_INFO)),
        8 "images" many(Of(&CONTAINER_IMAGE)), 9 "volumesInUse" many(Text), 10 "volumesAttached" many(Of(&ATTACHED_VOLUME)),
        11 "config" kept(Of(&NODE_CONFIG_STATUS)), 12 "runtimeHandlers" many(Of(&NODE_RUNTIME_HANDLER)),
        13 "features" kept(Of(&NODE_FEATURES)), 14 "declaredFeatures" many(Text) }
    NODE_SWAP_STATUS { 1 "capacity" kept(Int) }
    NODE_SYSTEM_INFO { 1 "machineID" kept(Text), 2 "systemUUID" kept(Text), 3 "bootID" kept(Text), 4 "kernelVersion" kept(Text),
        5 "osImage" kept(Text), 6 "containerRuntimeVersion" kept(Text), 7 "kubeletVersion" kept(Text), 8 "kubeProxyVersion" kept(Text),
        9 "operatingSystem" kept(Text), 10 "architecture" kept(Text), 11 "swap" kept(Of(&NODE_SWAP_STATUS)) }
    NON_RESOURCE_ATTRIBUTES { 1 "path" one(Text), 2 "verb" one(Text) }
    NON_RESOURCE_RULE { 1 "verbs" many(Text), 2 "nonResourceURLs" many(Text) }
    OBJECT_FIELD_SELECTOR { 1 "apiVersion" one(Text), 2 "fieldPath" kept(Text) }
    OBJECT_META { 1 "name" one(Text), 2 "generateName" one(Text), 3 "namespace" one(Text), 4 "selfLink" one(Text), 5 "uid" one(Text),
        6 "resourceVersion" one(Text), 7 "generation" one(Int), 8 "creationTimestamp" one(Time), 9 "deletionTimestamp" kept(Time),
        10 "deletionGracePeriodSeconds" kept(Int), 11 "labels" map(Text), 12 "annotations" map(Text),
        13 "ownerReferences" many(Of(&OWNER_REFERENCE)), 14 "finalizers" many(Text), 17 "managedFields" many(Of(&MANAGED_FIELDS_ENTRY)) }
    OBJECT_REFERENCE { 1 "kind" one(Text), 2 "namespace" one(Text), 3 "name" one(Text), 4 "uid" one(Text), 5 "apiVersion" one(Text),
        6 "resourceVersion" one(Text), 7 "fieldPath" one(Text) }
    OVERHEAD { 1 "podFixed" map(Quantity) }
    OWNER_REFERENCE { 1 "kind" kept(Text), 3 "name" kept(Text), 4 "uid" kept(Text), 5 "apiVersion" kept(Text), 6 "controller" kept(Bool),
        7 "blockOwnerDeletion" kept(Bool) }
    PERSISTENT_VOLUME { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&PERSISTENT_VOLUME_SPEC)),
        3 "status" one(Of(&PERSISTENT_VOLUME_STATUS)) }
    PERSISTENT_VOLUME_CLAIM { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&PERSISTENT_VOLUME_CLAIM_SPEC)),
        3 "status" one(Of(&PERSISTENT_VOLUME_CLAIM_STATUS)) }
    PERSISTENT_VOLUME_CLAIM_CONDITION { 1 "type" kept(Text), 2 "status" kept(Text), 3 "lastProbeTime" one(Time),
        4 "lastTransitionTime" one(Time), 5 "reason" one(Text), 6 "message" one(Text) }
    PERSISTENT_VOLUME_CLAIM_SPEC { 1 "accessModes" many(Text), 2 "resources" one(Of(&VOLUME_RESOURCE_REQUIREMENTS)),
        3 "volumeName" one(Text), 4 "selector" kept(Of(&LABEL_SELECTOR)), 5 "storageClassName" kept(Text), 6 "volumeMode" kept(Text),
        7 "dataSource" kept(Of(&TYPED_LOCAL_OBJECT_REFERENCE)), 8 "dataSourceRef" kept(Of(&TYPED_OBJECT_REFERENCE)),
        9 "volumeAttributesClassName" kept(Text) }
    PERSISTENT_VOLUME_CLAIM_STATUS { 1 "phase" one(Text), 2 "accessModes" many(Text), 3 "capacity" map(Quantity),
        4 "conditions" many(Of(&PERSISTENT_VOLUME_CLAIM_CONDITION)), 5 "allocatedResources" map(Quantity),
        7 "allocatedResourceStatuses" map(Text), 8 "currentVolumeAttributesClassName" kept(Text),
        9 "modifyVolumeStatus" kept(Of(&MODIFY_VOLUME_STATUS)) }
    PERSISTENT_VOLUME_CLAIM_TEMPLATE { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&PERSISTENT_VOLUME_CLAIM_SPEC)) }
    PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE { 1 "claimName" kept(Text), 2 "readOnly" one(Bool) }
    PERSISTENT_VOLUME_SOURCE { 1 "gcePersistentDisk" kept(Of(&GCE_PERSISTENT_DISK_VOLUME_SOURCE)),
        2 "awsElasticBlockStore" kept(Of(&AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE)), 3 "hostPath" kept(Of(&HOST_PATH_VOLUME_SOURCE)),
        4 "glusterfs" kept(Of(&GLUSTERFS_PERSISTENT_VOLUME_SOURCE)), 5 "nfs" kept(Of(&NFS_VOLUME_SOURCE)),
        6 "rbd" kept(Of(&RBD_PERSISTENT_VOLUME_SOURCE)), 7 "iscsi" kept(Of(&ISCSI_PERSISTENT_VOLUME_SOURCE)),
        8 "cinder" kept(Of(&CINDER_PERSISTENT_VOLUME_SOURCE)), 9 "cephfs" kept(Of(&CEPH_FS_PERSISTENT_VOLUME_SOURCE)),
        10 "fc" kept(Of(&FC_VOLUME_SOURCE)), 11 "flocker" kept(Of(&FLOCKER_VOLUME_SOURCE)),
        12 "flexVolume" kept(Of(&FLEX_PERSISTENT_VOLUME_SOURCE)), 13 "azureFile" kept(Of(&AZURE_FILE_PERSISTENT_VOLUME_SOURCE)),
        14 "vsphereVolume" kept(Of(&VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE)), 15 "quobyte" kept(Of(&QUOBYTE_VOLUME_SOURCE)),
        16 "azureDisk" kept(Of(&AZURE_DISK_VOLUME_SOURCE)), 17 "photonPersistentDisk" kept(Of(&PHOTON_PERSISTENT_DISK_VOLUME_SOURCE)),
        18 "portworxVolume" kept(Of(&PORTWORX_VOLUME_SOURCE)), 19 "scaleIO" kept(Of(&SCALE_IO_PERSISTENT_VOLUME_SOURCE)),
        20 "local" kept(Of(&LOCAL_VOLUME_SOURCE)), 21 "storageos" kept(Of(&STORAGE_OS_PERSISTENT_VOLUME_SOURCE)),
        22 "csi" kept(Of(&CSI_PERSISTENT_VOLUME_SOURCE)) }
    PERSISTENT_VOLUME_SPEC { 1 "capacity" map(Quantity), 2 "" inline(Of(&PERSISTENT_VOLUME_SOURCE)), 3 "accessModes" many(Text),
        4 "claimRef" kept(Of(&OBJECT_REFERENCE)), 5 "persistentVolumeReclaimPolicy" one(Text), 6 "storageClassName" one(Text),
        7 "mountOptions" many(Text), 8 "volumeMode" kept(Text), 9 "nodeAffinity" kept(Of(&VOLUME_NODE_AFFINITY)),
        10 "volumeAttributesClassName" kept(Text) }
    PERSISTENT_VOLUME_STATUS { 1 "phase" one(Text), 2 "message" one(Text), 3 "reason" one(Text), 4 "lastPhaseTransitionTime" kept(Time) }
    PHOTON_PERSISTENT_DISK_VOLUME_SOURCE { 1 "pdID" kept(Text), 2 "fsType" one(Text) }
    POD { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&POD_SPEC)), 3 "status" one(Of(&POD_STATUS)) }
    POD_AFFINITY { 1 "requiredDuringSchedulingIgnoredDuringExecution" many(Of(&POD_AFFINITY_TERM)),
        2 "preferredDuringSchedulingIgnoredDuringExecution" many(Of(&WEIGHTED_POD_AFFINITY_TERM)) }
    POD_AFFINITY_TERM { 1 "labelSelector" kept(Of(&LABEL_SELECTOR)), 2 "namespaces" many(Text), 3 "topologyKey" kept(Text),
        4 "namespaceSelector" kept(Of(&LABEL_SELECTOR)), 5 "matchLabelKeys" many(Text), 6 "mismatchLabelKeys" many(Text) }
    POD_ANTI_AFFINITY { 1 "requiredDuringSchedulingIgnoredDuringExecution" many(Of(&POD_AFFINITY_TERM)),
        2 "preferredDuringSchedulingIgnoredDuringExecution" many(Of(&WEIGHTED_POD_AFFINITY_TERM)) }
    POD_CERTIFICATE_PROJECTION { 1 "signerName" one(Text), 2 "keyType" one(Text), 3 "maxExpirationSeconds" kept(Int),
        4 "credentialBundlePath" one(Text), 5 "keyPath" one(Text), 6 "certificateChainPath" one(Text), 7 "userAnnotations" map(Text) }
    POD_CONDITION { 1 "type" kept(Text), 2 "status" kept(Text), 3 "lastProbeTime" one(Time), 4 "lastTransitionTime" one(Time),
        5 "reason" one(Text), 6 "message" one(Text), 7 "observedGeneration" one(Int) }
    POD_DNS_CONFIG { 1 "nameservers" many(Text), 2 "searches" many(Text), 3 "options" many(Of(&POD_DNS_CONFIG_OPTION)) }
    POD_DNS_CONFIG_OPTION { 1 "name" one(Text), 2 "value" kept(Text) }
    POD_EXTENDED_RESOURCE_CLAIM_STATUS { 1 "requestMappings" many(Of(&CONTAINER_EXTENDED_RESOURCE_REQUEST)),
        2 "resourceClaimName" kept(Text) }
    POD_IP { 1 "ip" kept(Text) }
    POD_OS { 1 "name" kept(Text) }
    POD_READINESS_GATE { 1 "conditionType" kept(Text) }
    POD_RESOURCE_CLAIM { 1 "name" kept(Text), 3 "resourceClaimName" kept(Text), 4 "resourceClaimTemplateName" kept(Text) }
    POD_RESOURCE_CLAIM_STATUS { 1 "name" kept(Text), 2 "resourceClaimName" kept(Text) }
    POD_SCHEDULING_GATE { 1 "name" kept(Text) }
    POD_SCHEDULING_GROUP { 1 "podGroupName" kept(Text) }
    POD_SECURITY_CONTEXT { 1 "seLinuxOptions" kept(Of(&SE_LINUX_OPTIONS)), 2 "runAsUser" kept(Int), 3 "runAsNonRoot" kept(Bool),
        4 "supplementalGroups" many(Int), 5 "fsGroup" kept(Int), 6 "runAsGroup" kept(Int), 7 "sysctls" many(Of(&SYSCTL)),
        8 "windowsOptions" kept(Of(&WINDOWS_SECURITY_CONTEXT_OPTIONS)), 9 "fsGroupChangePolicy" kept(Text),
        10 "seccompProfile" kept(Of(&SECCOMP_PROFILE)), 11 "appArmorProfile" kept(Of(&APP_ARMOR_PROFILE)),
        12 "supplementalGroupsPolicy" kept(Text), 13 "seLinuxChangePolicy" kept(Text) }
    POD_SPEC { 1 "volumes" many(Of(&VOLUME)), 2 "containers" many(Of(&CONTAINER)), 3 "restartPolicy" one(Text),
        4 "terminationGracePeriodSeconds" kept(Int), 5 "activeDeadlineSeconds" kept(Int), 6 "dnsPolicy" one(Text),
        7 "nodeSelector" map(Text), 8 "serviceAccountName" one(Text), 9 "serviceAccount" one(Text), 10 "nodeName" one(Text),
        11 "hostNetwork" one(Bool), 12 "hostPID" one(Bool), 13 "hostIPC" one(Bool), 14 "securityContext" kept(Of(&POD_SECURITY_CONTEXT)),
        15 "imagePullSecrets" many(Of(&LOCAL_OBJECT_REFERENCE)), 16 "hostname" one(Text), 17 "subdomain" one(Text),
        18 "affinity" kept(Of(&AFFINITY)), 19 "schedulerName" one(Text), 20 "initContainers" many(Of(&CONTAINER)),
        21 "automountServiceAccountToken" kept(Bool), 22 "tolerations" many(Of(&TOLERATION)), 23 "hostAliases" many(Of(&HOST_ALIAS)),
        24 "priorityClassName" one(Text), 25 "priority" kept(Int), 26 "dnsConfig" kept(Of(&POD_DNS_CONFIG)),
        27 "shareProcessNamespace" kept(Bool), 28 "readinessGates" many(Of(&POD_READINESS_GATE)), 29 "runtimeClassName" kept(Text),
        30 "enableServiceLinks" kept(Bool), 31 "preemptionPolicy" kept(Text), 32 "overhead" map(Quantity),
        33 "topologySpreadConstraints" many(Of(&TOPOLOGY_SPREAD_CONSTRAINT)), 34 "ephemeralContainers" many(Of(&EPHEMERAL_CONTAINER)),
        35 "setHostnameAsFQDN" kept(Bool), 36 "os" kept(Of(&POD_OS)), 37 "hostUsers" kept(Bool),
        38 "schedulingGates" many(Of(&POD_SCHEDULING_GATE)), 39 "resourceClaims" many(Of(&POD_RESOURCE_CLAIM)),
        40 "resources" kept(Of(&RESOURCE_REQUIREMENTS)), 41 "hostnameOverride" kept(Text),
        43 "schedulingGroup" kept(Of(&POD_SCHEDULING_GROUP)) }
    POD_STATUS { 1 "phase" one(Text), 2 "conditions" many(Of(&POD_CONDITION)), 3 "message" one(Text), 4 "reason" one(Text),
        5 "hostIP" one(Text), 6 "podIP" one(Text), 7 "startTime" kept(Time), 8 "containerStatuses" many(Of(&CONTAINER_STATUS)),
        9 "qosClass" one(Text), 10 "initContainerStatuses" many(Of(&CONTAINER_STATUS)), 11 "nominatedNodeName" one(Text),
        12 "podIPs" many(Of(&POD_IP)), 13 "ephemeralContainerStatuses" many(Of(&CONTAINER_STATUS)), 14 "resize" one(Text),
        15 "resourceClaimStatuses" many(Of(&POD_RESOURCE_CLAIM_STATUS)), 16 "hostIPs" many(Of(&HOST_IP)),
        17 "observedGeneration" one(Int), 18 "extendedResourceClaimStatus" kept(Of(&POD_EXTENDED_RESOURCE_CLAIM_STATUS)),
        19 "allocatedResources" map(Quantity), 20 "resources" kept(Of(&RESOURCE_REQUIREMENTS)),
        21 "nodeAllocatableResourceClaimStatuses" many(Of(&NODE_ALLOCATABLE_RESOURCE_CLAIM_STATUS)) }
    PORTWORX_VOLUME_SOURCE { 1 "volumeID" kept(Text), 2 "fsType" one(Text), 3 "readOnly" one(Bool) }
    PORT_STATUS { 1 "port" kept(Int), 2 "protocol" kept(Text), 3 "error" kept(Text) }
    PRECONDITIONS { 1 "uid" kept(Text), 2 "resourceVersion" kept(Text) }
    PREFERRED_SCHEDULING_TERM { 1 "weight" kept(Int), 2 "preference" one(Of(&NODE_SELECTOR_TERM)) }
    PROBE { 1 "" inline(Of(&PROBE_HANDLER)), 2 "initialDelaySeconds" one(Int), 3 "timeoutSeconds" one(Int), 4 "periodSeconds" one(Int),
        5 "successThreshold" one(Int), 6 "failureThreshold" one(Int), 7 "terminationGracePeriodSeconds" kept(Int) }
    PROBE_HANDLER { 1 "exec" kept(Of(&EXEC_ACTION)), 2 "httpGet" kept(Of(&HTTP_GET_ACTION)), 3 "tcpSocket" kept(Of(&TCP_SOCKET_ACTION)),
        4 "grpc" kept(Of(&GRPC_ACTION)) }
    PROJECTED_VOLUME_SOURCE { 1 "sources" many(Of(&VOLUME_PROJECTION)), 2 "defaultMode" kept(Int) }
    QUOBYTE_VOLUME_SOURCE { 1 "registry" kept(Text), 2 "volume" kept(Text), 3 "readOnly" one(Bool), 4 "user" one(Text),
        5 "group" one(Text), 6 "tenant" one(Text) }
    RBD_PERSISTENT_VOLUME_SOURCE { 1 "monitors" many(Text), 2 "image" kept(Text), 3 "fsType" one(Text), 4 "pool" one(Text),
        5 "user" one(Text), 6 "keyring" one(Text), 7 "secretRef" kept(Of(&SECRET_REFERENCE)), 8 "readOnly" one(Bool) }
    RBD_VOLUME_SOURCE { 1 "monitors" many(Text), 2 "image" kept(Text), 3 "fsType" one(Text), 4 "pool" one(Text), 5 "user" one(Text),
        6 "keyring" one(Text), 7 "secretRef" kept(Of(&LOCAL_OBJECT_REFERENCE)), 8 "readOnly" one(Bool) }
    RESOURCE_ATTRIBUTES { 1 "namespace" one(Text), 2 "verb" one(Text), 3 "group" one(Text), 4 "version" one(Text), 5 "resource" one(Text),
        6 "subresource" one(Text), 7 "name" one(Text), 8 "fieldSelector" kept(Of(&FIELD_SELECTOR_ATTRIBUTES)),
        9 "labelSelector" kept(Of(&LABEL_SELECTOR_ATTRIBUTES)) }
    RESOURCE_CLAIM { 1 "name" kept(Text), 2 "request" one(Text) }
    RESOURCE_FIELD_SELECTOR { 1 "containerName" one(Text), 2 "resource" kept(Text), 3 "divisor" one(Quantity) }
    RESOURCE_HEALTH { 1 "resourceID" kept(Text), 2 "health" one(Text), 6 "message" kept(Text) }
    RESOURCE_REQUIREMENTS { 1 "limits" map(Quantity), 2 "requests" map(Quantity), 3 "claims" many(Of(&RESOURCE_CLAIM)) }
    RESOURCE_RULE { 1 "verbs" many(Text), 2 "apiGroups" many(Text), 3 "resources" many(Text), 4 "resourceNames" many(Text) }
    RESOURCE_STATUS { 1 "name" kept(Text), 2 "resources" many(Of(&RESOURCE_HEALTH)) }
    RUNTIME_CLASS { 1 "metadata" one(Of(&OBJECT_META)), 2 "handler" kept(Text), 3 "overhead" kept(Of(&OVERHEAD)),
        4 "scheduling" kept(Of(&SCHEDULING)) }
    SCALE_IO_PERSISTENT_VOLUME_SOURCE { 1 "gateway" kept(Text), 2 "system" kept(Text), 3 "secretRef" kept(Of(&SECRET_REFERENCE)),
        4 "sslEnabled" one(Bool), 5 "protectionDomain" one(Text), 6 "storagePool" one(Text), 7 "storageMode" one(Text),
        8 "volumeName" one(Text), 9 "fsType" one(Text), 10 "readOnly" one(Bool) }
    SCALE_IO_VOLUME_SOURCE { 1 "gateway" kept(Text), 2 "system" kept(Text), 3 "secretRef" kept(Of(&LOCAL_OBJECT_REFERENCE)),
        4 "sslEnabled" one(Bool), 5 "protectionDomain" one(Text), 6 "storagePool" one(Text), 7 "storageMode" one(Text),
        8 "volumeName" one(Text), 9 "fsType" one(Text), 10 "readOnly" one(Bool) }
    SCHEDULING { 1 "nodeSelector" map(Text), 2 "tolerations" many(Of(&TOLERATION)) }
    SECCOMP_PROFILE { 1 "type" kept(Text), 2 "localhostProfile" kept(Text) }
    SECRET { 1 "metadata" one(Of(&OBJECT_META)), 2 "data" map(Bytes), 3 "type" one(Text), 4 "stringData" map(Text),
        5 "immutable" kept(Bool) }
    SECRET_ENV_SOURCE { 1 "" inline(Of(&LOCAL_OBJECT_REFERENCE)), 2 "optional" kept(Bool) }
    SECRET_KEY_SELECTOR { 1 "" inline(Of(&LOCAL_OBJECT_REFERENCE)), 2 "key" kept(Text), 3 "optional" kept(Bool) }
    SECRET_PROJECTION { 1 "" inline(Of(&LOCAL_OBJECT_REFERENCE)), 2 "items" many(Of(&KEY_TO_PATH)), 4 "optional" kept(Bool) }
    SECRET_REFERENCE { 1 "name" one(Text), 2 "namespace" one(Text) }
    SECRET_VOLUME_SOURCE { 1 "secretName" one(Text), 2 "items" many(Of(&KEY_TO_PATH)), 3 "defaultMode" kept(Int), 4 "optional" kept(Bool) }
    SECURITY_CONTEXT { 1 "capabilities" kept(Of(&CAPABILITIES)), 2 "privileged" kept(Bool),
        3 "seLinuxOptions" kept(Of(&SE_LINUX_OPTIONS)), 4 "runAsUser" kept(Int), 5 "runAsNonRoot" kept(Bool),
        6 "readOnlyRootFilesystem" kept(Bool), 7 "allowPrivilegeEscalation" kept(Bool), 8 "runAsGroup" kept(Int),
        9 "procMount" kept(Text), 10 "windowsOptions" kept(Of(&WINDOWS_SECURITY_CONTEXT_OPTIONS)),
        11 "seccompProfile" kept(Of(&SECCOMP_PROFILE)), 12 "appArmorProfile" kept(Of(&APP_ARMOR_PROFILE)) }
    SELF_SUBJECT_ACCESS_REVIEW { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&SELF_SUBJECT_ACCESS_REVIEW_SPEC)),
        3 "status" one(Of(&SUBJECT_ACCESS_REVIEW_STATUS)) }
    SELF_SUBJECT_ACCESS_REVIEW_SPEC { 1 "resourceAttributes" kept(Of(&RESOURCE_ATTRIBUTES)),
        2 "nonResourceAttributes" kept(Of(&NON_RESOURCE_ATTRIBUTES)) }
    SELF_SUBJECT_REVIEW { 1 "metadata" one(Of(&OBJECT_META)), 2 "status" one(Of(&SELF_SUBJECT_REVIEW_STATUS)) }
    SELF_SUBJECT_REVIEW_STATUS { 1 "userInfo" one(Of(&USER_INFO)) }
    SELF_SUBJECT_RULES_REVIEW { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&SELF_SUBJECT_RULES_REVIEW_SPEC)),
        3 "status" one(Of(&SUBJECT_RULES_REVIEW_STATUS)) }
    SELF_SUBJECT_RULES_REVIEW_SPEC { 1 "namespace" one(Text) }
    SERVICE { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&SERVICE_SPEC)), 3 "status" one(Of(&SERVICE_STATUS)) }
    SERVICE_ACCOUNT { 1 "metadata" one(Of(&OBJECT_META)), 2 "secrets" many(Of(&OBJECT_REFERENCE)),
        3 "imagePullSecrets" many(Of(&LOCAL_OBJECT_REFERENCE)), 4 "automountServiceAccountToken" kept(Bool) }
    SERVICE_ACCOUNT_TOKEN_PROJECTION { 1 "audience" one(Text), 2 "expirationSeconds" kept(Int), 3 "path" kept(Text) }
    SERVICE_CIDR { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&SERVICE_CIDR_SPEC)), 3 "status" one(Of(&SERVICE_CIDR_STATUS)) }
    SERVICE_CIDR_SPEC { 1 "cidrs" many(Text) }
    SERVICE_CIDR_STATUS { 1 "conditions" many(Of(&CONDITION)) }
    SERVICE_PORT { 1 "name" one(Text), 2 "protocol" one(Text), 3 "port" kept(Int), 4 "targetPort" one(IntOrString), 5 "nodePort" one(Int),
        6 "appProtocol" kept(Text) }
    SERVICE_SPEC { 1 "ports" many(Of(&SERVICE_PORT)), 2 "selector" map(Text), 3 "clusterIP" one(Text), 4 "type" one(Text),
        5 "externalIPs" many(Text), 7 "sessionAffinity" one(Text), 8 "loadBalancerIP" one(Text), 9 "loadBalancerSourceRanges" many(Text),
        10 "externalName" one(Text), 11 "externalTrafficPolicy" one(Text), 12 "healthCheckNodePort" one(Int),
        13 "publishNotReadyAddresses" one(Bool), 14 "sessionAffinityConfig" kept(Of(&SESSION_AFFINITY_CONFIG)),
        17 "ipFamilyPolicy" kept(Text), 18 "clusterIPs" many(Text), 19 "ipFamilies" many(Text),
        20 "allocateLoadBalancerNodePorts" kept(Bool), 21 "loadBalancerClass" kept(Text), 22 "internalTrafficPolicy" kept(Text),
        23 "trafficDistribution" kept(Text) }
    SERVICE_STATUS { 1 "loadBalancer" one(Of(&LOAD_BALANCER_STATUS)), 2 "conditions" many(Of(&CONDITION)) }
    SESSION_AFFINITY_CONFIG { 1 "clientIP" kept(Of(&CLIENT_IP_CONFIG)) }
    SE_LINUX_OPTIONS { 1 "user" one(Text), 2 "role" one(Text), 3 "type" one(Text), 4 "level" one(Text) }
    SLEEP_ACTION { 1 "seconds" kept(Int) }
    STORAGE_CLASS { 1 "metadata" one(Of(&OBJECT_META)), 2 "provisioner" kept(Text), 3 "parameters" map(Text),
        4 "reclaimPolicy" kept(Text), 5 "mountOptions" many(Text), 6 "allowVolumeExpansion" kept(Bool), 7 "volumeBindingMode" kept(Text),
        8 "allowedTopologies" many(Of(&TOPOLOGY_SELECTOR_TERM)) }
    STORAGE_OS_PERSISTENT_VOLUME_SOURCE { 1 "volumeName" one(Text), 2 "volumeNamespace" one(Text), 3 "fsType" one(Text),
        4 "readOnly" one(Bool), 5 "secretRef" kept(Of(&OBJECT_REFERENCE)) }
    STORAGE_OS_VOLUME_SOURCE { 1 "volumeName" one(Text), 2 "volumeNamespace" one(Text), 3 "fsType" one(Text), 4 "readOnly" one(Bool),
        5 "secretRef" kept(Of(&LOCAL_OBJECT_REFERENCE)) }
    STORAGE_TOKEN_REQUEST { 1 "audience" kept(Text), 2 "expirationSeconds" kept(Int) }
    SUBJECT_ACCESS_REVIEW { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&SUBJECT_ACCESS_REVIEW_SPEC)),
        3 "status" one(Of(&SUBJECT_ACCESS_REVIEW_STATUS)) }
    SUBJECT_ACCESS_REVIEW_SPEC { 1 "resourceAttributes" kept(Of(&RESOURCE_ATTRIBUTES)),
        2 "nonResourceAttributes" kept(Of(&NON_RESOURCE_ATTRIBUTES)), 3 "user" one(Text), 4 "groups" many(Text), 5 "extra" map(Texts),
        6 "uid" one(Text) }
    SUBJECT_ACCESS_REVIEW_STATUS { 1 "allowed" kept(Bool), 2 "reason" one(Text), 3 "evaluationError" one(Text), 4 "denied" one(Bool) }
    SUBJECT_RULES_REVIEW_STATUS { 1 "resourceRules" many(Of(&RESOURCE_RULE)), 2 "nonResourceRules" many(Of(&NON_RESOURCE_RULE)),
        3 "incomplete" kept(Bool), 4 "evaluationError" one(Text) }
    SYSCTL { 1 "name" kept(Text), 2 "value" kept(Text) }
    TAINT { 1 "key" kept(Text), 2 "value" one(Text), 3 "effect" kept(Text), 4 "timeAdded" kept(Time) }
    TCP_SOCKET_ACTION { 1 "port" one(IntOrString), 2 "host" one(Text) }
    TOKEN_REQUEST { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&TOKEN_REQUEST_SPEC)), 3 "status" one(Of(&TOKEN_REQUEST_STATUS)) }
    TOKEN_REQUEST_SPEC { 1 "audiences" many(Text), 3 "boundObjectRef" kept(Of(&BOUND_OBJECT_REFERENCE)), 4 "expirationSeconds" kept(Int) }
    TOKEN_REQUEST_STATUS { 1 "token" kept(Text), 2 "expirationTimestamp" one(Time) }
    TOKEN_REVIEW { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&TOKEN_REVIEW_SPEC)), 3 "status" one(Of(&TOKEN_REVIEW_STATUS)) }
    TOKEN_REVIEW_SPEC { 1 "token" one(Text), 2 "audiences" many(Text) }
    TOKEN_REVIEW_STATUS { 1 "authenticated" one(Bool), 2 "user" one(Of(&USER_INFO)), 3 "error" one(Text), 4 "audiences" many(Text) }
    TOLERATION { 1 "key" one(Text), 2 "operator" one(Text), 3 "value" one(Text), 4 "effect" one(Text), 5 "tolerationSeconds" kept(Int) }
    TOPOLOGY_SELECTOR_LABEL_REQUIREMENT { 1 "key" kept(Text), 2 "values" many(Text) }
    TOPOLOGY_SELECTOR_TERM { 1 "matchLabelExpressions" many(Of(&TOPOLOGY_SELECTOR_LABEL_REQUIREMENT)) }
    TOPOLOGY_SPREAD_CONSTRAINT { 1 "maxSkew" kept(Int), 2 "topologyKey" kept(Text), 3 "whenUnsatisfiable" kept(Text),
        4 "labelSelector" kept(Of(&LABEL_SELECTOR)), 5 "minDomains" kept(Int), 6 "nodeAffinityPolicy" kept(Text),
        7 "nodeTaintsPolicy" kept(Text), 8 "matchLabelKeys" many(Text) }
    TYPED_LOCAL_OBJECT_REFERENCE { 1 "apiGroup" kept(Text), 2 "kind" kept(Text), 3 "name" kept(Text) }
    TYPED_OBJECT_REFERENCE { 1 "apiGroup" kept(Text), 2 "kind" kept(Text), 3 "name" kept(Text), 4 "namespace" kept(Text) }
    USER_INFO { 1 "username" one(Text), 2 "uid" one(Text), 3 "groups" many(Text), 4 "extra" map(Texts) }
    VOLUME { 1 "name" kept(Text), 2 "" inline(Of(&VOLUME_SOURCE)) }
    VOLUME_ATTACHMENT { 1 "metadata" one(Of(&OBJECT_META)), 2 "spec" one(Of(&VOLUME_ATTACHMENT_SPEC)),
        3 "status" one(Of(&VOLUME_ATTACHMENT_STATUS)) }
    VOLUME_ATTACHMENT_SOURCE { 1 "persistentVolumeName" kept(Text), 2 "inlineVolumeSpec" kept(Of(&PERSISTENT_VOLUME_SPEC)) }
    VOLUME_ATTACHMENT_SPEC { 1 "attacher" kept(Text), 2 "source" one(Of(&VOLUME_ATTACHMENT_SOURCE)), 3 "nodeName" kept(Text) }
    VOLUME_ATTACHMENT_STATUS { 1 "attached" kept(Bool), 2 "attachmentMetadata" map(Text), 3 "attachError" kept(Of(&VOLUME_ERROR)),
        4 "detachError" kept(Of(&VOLUME_ERROR)) }
    VOLUME_DEVICE { 1 "name" kept(Text), 2 "devicePath" kept(Text) }
    VOLUME_ERROR { 1 "time" one(Time), 2 "message" one(Text), 3 "errorCode" kept(Int) }
    VOLUME_MOUNT { 1 "name" kept(Text), 2 "readOnly" one(Bool), 3 "mountPath" kept(Text), 4 "subPath" one(Text),
        5 "mountPropagation" kept(Text), 6 "subPathExpr" one(Text), 7 "recursiveReadOnly" kept(Text) }
    VOLUME_MOUNT_STATUS { 1 "name" kept(Text), 2 "mountPath" kept(Text), 3 "readOnly" one(Bool), 4 "recursiveReadOnly" kept(Text),
        5 "volumeStatus" kept(Of(&VOLUME_STATUS)) }
    VOLUME_NODE_AFFINITY { 1 "required" kept(Of(&NODE_SELECTOR)) }
    VOLUME_NODE_RESOURCES { 1 "count" kept(Int) }
    VOLUME_PROJECTION { 1 "secret" kept(Of(&SECRET_PROJECTION)), 2 "downwardAPI" kept(Of(&DOWNWARD_API_PROJECTION)),
        3 "configMap" kept(Of(&CONFIG_MAP_PROJECTION)), 4 "serviceAccountToken" kept(Of(&SERVICE_ACCOUNT_TOKEN_PROJECTION)),
        5 "clusterTrustBundle" kept(Of(&CLUSTER_TRUST_BUNDLE_PROJECTION)), 6 "podCertificate" kept(Of(&POD_CERTIFICATE_PROJECTION)) }
    VOLUME_RESOURCE_REQUIREMENTS { 1 "limits" map(Quantity), 2 "requests" map(Quantity) }
    VOLUME_SOURCE { 1 "hostPath" kept(Of(&HOST_PATH_VOLUME_SOURCE)), 2 "emptyDir" kept(Of(&EMPTY_DIR_VOLUME_SOURCE)),
        3 "gcePersistentDisk" kept(Of(&GCE_PERSISTENT_DISK_VOLUME_SOURCE)),
        4 "awsElasticBlockStore" kept(Of(&AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE)), 5 "gitRepo" kept(Of(&GIT_REPO_VOLUME_SOURCE)),
        6 "secret" kept(Of(&SECRET_VOLUME_SOURCE)), 7 "nfs" kept(Of(&NFS_VOLUME_SOURCE)), 8 "iscsi" kept(Of(&ISCSI_VOLUME_SOURCE)),
        9 "glusterfs" kept(Of(&GLUSTERFS_VOLUME_SOURCE)), 10 "persistentVolumeClaim" kept(Of(&PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE)),
        11 "rbd" kept(Of(&RBD_VOLUME_SOURCE)), 12 "flexVolume" kept(Of(&FLEX_VOLUME_SOURCE)), 13 "cinder" kept(Of(&CINDER_VOLUME_SOURCE)),
        14 "cephfs" kept(Of(&CEPH_FS_VOLUME_SOURCE)), 15 "flocker" kept(Of(&FLOCKER_VOLUME_SOURCE)),
        16 "downwardAPI" kept(Of(&DOWNWARD_API_VOLUME_SOURCE)), 17 "fc" kept(Of(&FC_VOLUME_SOURCE)),
        18 "azureFile" kept(Of(&AZURE_FILE_VOLUME_SOURCE)), 19 "configMap" kept(Of(&CONFIG_MAP_VOLUME_SOURCE)),
        20 "vsphereVolume" kept(Of(&VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE)), 21 "quobyte" kept(Of(&QUOBYTE_VOLUME_SOURCE)),
        22 "azureDisk" kept(Of(&AZURE_DISK_VOLUME_SOURCE)), 23 "photonPersistentDisk" kept(Of(&PHOTON_PERSISTENT_DISK_VOLUME_SOURCE)),
        24 "portworxVolume" kept(Of(&PORTWORX_VOLUME_SOURCE)), 25 "scaleIO" kept(Of(&SCALE_IO_VOLUME_SOURCE)),
        26 "projected" kept(Of(&PROJECTED_VOLUME_SOURCE)), 27 "storageos" kept(Of(&STORAGE_OS_VOLUME_SOURCE)),
        28 "csi" kept(Of(&CSI_VOLUME_SOURCE)), 29 "ephemeral" kept(Of(&EPHEMERAL_VOLUME_SOURCE)),
        30 "image" kept(Of(&IMAGE_VOLUME_SOURCE)) }
    VOLUME_STATUS { 1 "image" kept(Of(&IMAGE_VOLUME_STATUS)) }
    VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE { 1 "volumePath" kept(Text), 2 "fsType" one(Text), 3 "storagePolicyName" one(Text),
        4 "storagePolicyID" one(Text) }
    WEIGHTED_POD_AFFINITY_TERM { 1 "weight" kept(Int), 2 "podAffinityTerm" one(Of(&POD_AFFINITY_TERM)) }
    WINDOWS_SECURITY_CONTEXT_OPTIONS { 1 "gmsaCredentialSpecName" kept(Text), 2 "gmsaCredentialSpec" kept(Text),
        3 "runAsUserName" kept(Text), 4 "hostProcess" kept(Bool) }
}
