//! Volumes and claims of core/v1, and the kinds of storage.k8s.io/v1.

use super::meta::{LABEL_SELECTOR, META, NODE_SELECTOR, REFERENCE_FIELDS, SECRET_NAME};
use super::volume::{HOST_PATH, NFS};
use super::{AMOUNTS, Field, Shape, TEXT_MAP, TEXTS};

pub const VOLUME: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("spec", Shape::Object(VOLUME_SPEC)),
    (
        "status",
        Shape::Object(&[
            ("phase", Shape::Text),
            ("message", Shape::Text),
            ("reason", Shape::Text),
            ("lastPhaseTransitionTime", Shape::Time),
        ]),
    ),
];

const VOLUME_SPEC: &[Field] = &[
    ("capacity", AMOUNTS),
    ("accessModes", TEXTS),
    ("claimRef", REFERENCE_FIELDS),
    ("persistentVolumeReclaimPolicy", Shape::Text),
    ("storageClassName", Shape::Text),
    ("mountOptions", TEXTS),
    ("volumeMode", Shape::Text),
    ("nodeAffinity", Shape::Object(&[("required", NODE_SELECTOR)])),
    ("volumeAttributesClassName", Shape::Text),
    ("csi", Shape::Object(CSI)),
    ("hostPath", HOST_PATH),
    ("local", Shape::Object(&[("path", Shape::Text), ("fsType", Shape::Text)])),
    ("nfs", NFS),
    ("awsElasticBlockStore", Shape::Any),
    ("azureDisk", Shape::Any),
    ("azureFile", Shape::Any),
    ("cephfs", Shape::Any),
    ("cinder", Shape::Any),
    ("fc", Shape::Any),
    ("flexVolume", Shape::Any),
    ("flocker", Shape::Any),
    ("gcePersistentDisk", Shape::Any),
    ("glusterfs", Shape::Any),
    ("iscsi", Shape::Any),
    ("photonPersistentDisk", Shape::Any),
    ("portworxVolume", Shape::Any),
    ("quobyte", Shape::Any),
    ("rbd", Shape::Any),
    ("scaleIO", Shape::Any),
    ("storageos", Shape::Any),
    ("vsphereVolume", Shape::Any),
];

const CSI: &[Field] = &[
    ("driver", Shape::Text),
    ("volumeHandle", Shape::Text),
    ("readOnly", Shape::Bool),
    ("fsType", Shape::Text),
    ("volumeAttributes", TEXT_MAP),
    ("controllerPublishSecretRef", SECRET_NAME),
    ("nodeStageSecretRef", SECRET_NAME),
    ("nodePublishSecretRef", SECRET_NAME),
    ("controllerExpandSecretRef", SECRET_NAME),
    ("nodeExpandSecretRef", SECRET_NAME),
];

pub const CLAIM: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("spec", CLAIM_SPEC),
    ("status", Shape::Object(CLAIM_STATUS)),
];

pub const CLAIM_SPEC: Shape = Shape::Object(&[
    ("accessModes", TEXTS),
    ("selector", LABEL_SELECTOR),
    ("resources", Shape::Object(&[("limits", AMOUNTS), ("requests", AMOUNTS)])),
    ("volumeName", Shape::Text),
    ("storageClassName", Shape::Text),
    ("volumeMode", Shape::Text),
    ("dataSource", Shape::Atomic(&Shape::Object(&[("apiGroup", Shape::Text), ("kind", Shape::Text), ("name", Shape::Text)]))),
    (
        "dataSourceRef",
        Shape::Object(&[("apiGroup", Shape::Text), ("kind", Shape::Text), ("name", Shape::Text), ("namespace", Shape::Text)]),
    ),
    ("volumeAttributesClassName", Shape::Text),
]);

const CLAIM_STATUS: &[Field] = &[
    ("phase", Shape::Text),
    ("accessModes", TEXTS),
    ("capacity", AMOUNTS),
    ("conditions", Shape::Keyed(&["type"], &Shape::Object(CLAIM_CONDITION))),
    ("allocatedResources", AMOUNTS),
    ("allocatedResourceStatuses", TEXT_MAP),
    ("currentVolumeAttributesClassName", Shape::Text),
    ("modifyVolumeStatus", Shape::Object(&[("targetVolumeAttributesClassName", Shape::Text), ("status", Shape::Text)])),
];

const CLAIM_CONDITION: &[Field] = &[
    ("type", Shape::Text),
    ("status", Shape::Text),
    ("reason", Shape::Text),
    ("message", Shape::Text),
    ("lastProbeTime", Shape::Time),
    ("lastTransitionTime", Shape::Time),
];

pub const CLASS: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("provisioner", Shape::Text),
    ("parameters", TEXT_MAP),
    ("reclaimPolicy", Shape::Text),
    ("mountOptions", TEXTS),
    ("allowVolumeExpansion", Shape::Bool),
    ("volumeBindingMode", Shape::Text),
    ("allowedTopologies", Shape::List(&Shape::Any)),
];

pub const CSI_NODE: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("spec", Shape::Object(&[("drivers", Shape::Keyed(&["name"], &Shape::Object(NODE_DRIVER)))])),
];

const NODE_DRIVER: &[Field] =
    &[("name", Shape::Text), ("nodeID", Shape::Text), ("topologyKeys", TEXTS), ("allocatable", Shape::Object(&[("count", Shape::Int32)]))];

pub const CSI_DRIVER: &[Field] =
    &[("apiVersion", Shape::Text), ("kind", Shape::Text), ("metadata", META), ("spec", Shape::Object(DRIVER_SPEC))];

const DRIVER_SPEC: &[Field] = &[
    ("attachRequired", Shape::Bool),
    ("podInfoOnMount", Shape::Bool),
    ("volumeLifecycleModes", Shape::Replaced(&Shape::Set(&Shape::Text))),
    ("storageCapacity", Shape::Bool),
    ("fsGroupPolicy", Shape::Text),
    ("tokenRequests", Shape::List(&Shape::Object(&[("audience", Shape::Text), ("expirationSeconds", Shape::Int64)]))),
    ("requiresRepublish", Shape::Bool),
    ("seLinuxMount", Shape::Bool),
    ("nodeAllocatableUpdatePeriodSeconds", Shape::Int64),
    ("serviceAccountTokenInSecrets", Shape::Bool),
    ("preventPodSchedulingIfMissing", Shape::Bool),
];

pub const ATTACHMENT: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    (
        "spec",
        Shape::Object(&[
            ("attacher", Shape::Text),
            ("nodeName", Shape::Text),
            ("source", Shape::Object(&[("persistentVolumeName", Shape::Text), ("inlineVolumeSpec", Shape::Object(VOLUME_SPEC))])),
        ]),
    ),
    (
        "status",
        Shape::Object(&[
            ("attached", Shape::Bool),
            ("attachmentMetadata", TEXT_MAP),
            ("attachError", VOLUME_ERROR),
            ("detachError", VOLUME_ERROR),
        ]),
    ),
];

const VOLUME_ERROR: Shape = Shape::Object(&[("time", Shape::Time), ("message", Shape::Text), ("errorCode", Shape::Int32)]);
