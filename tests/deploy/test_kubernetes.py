"""Manifests: Ray's objects against KubeRay's CRDs, all others against Kubernetes' own schemas."""

import copy
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

KUBERAY = Path(__file__).resolve().parents[3] / "shared/reference/kuberay"
"""Beside the repository, not in it: KubeRay's files are its own."""
KUBERNETES = "1.31"
CRDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}


def strict(schema):
    """The schema, refusing keys that it does not name: Kubernetes would drop them without a word."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@pytest.fixture(scope="module")
def schemas():
    if not KUBERAY.is_dir():
        pytest.skip(f"KubeRay's CRDs are not in {KUBERAY.relative_to(KUBERAY.parents[2])} beside the repository")
    found = {}
    for kind, name in CRDS.items():
        crd = yaml.load((KUBERAY / name).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        (version,) = [one for one in crd["spec"]["versions"] if one["name"] == "v1"]
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        found[kind] = jsonschema.Draft202012Validator(schema)
    return found


def ray_objects(manifests):
    return {name: one for name, one in manifests.items() if one["apiVersion"] == "ray.io/v1"}


def cluster_specs(manifests):
    """The cluster of every Ray object."""
    return [
        one["spec"] if one["kind"] == "RayCluster" else one["spec"]["rayClusterSpec"]
        for one in ray_objects(manifests).values()
    ]


def groups(spec):
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_rays_objects_are_what_kuberay_takes(manifests, schemas):
    found = ray_objects(manifests)
    assert {one["kind"] for one in found.values()} == {"RayCluster", "RayJob"}
    for name, one in found.items():
        errors = [f"{name} {error.json_path}: {error.message[:200]}" for error in schemas[one["kind"]].iter_errors(one)]
        assert errors == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["rayVersion"], 2.6),
        (["headGroupSpec", "rayStartParms"], {}),
        (["workerGroupSpecs", 0, "maxReplicas"], "many"),
        (["authOptions", "mode"], "password"),
        (["headGroupSpec", "template", "spec", "containers", 0, "readynessProbe"], {}),
    ],
)
def test_the_schemas_see_mistakes(manifests, schemas, path, value):
    (one,) = [one for one in manifests.values() if one["kind"] == "RayCluster"]
    broken = inner = copy.deepcopy(one)
    for step in ["spec", *path[:-1]]:
        inner = inner[step]
    inner[path[-1]] = value
    assert list(schemas["RayCluster"].iter_errors(broken))


def test_all_other_objects_are_what_kubernetes_takes(manifests):
    others = {name: one for name, one in manifests.items() if name not in ray_objects(manifests)}
    assert {one["kind"] for one in others.values()} >= {"PersistentVolumeClaim", "StatefulSet", "Deployment", "Service"}
    for one in others.values():
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    broken = copy.deepcopy(next(one for one in others.values() if one["kind"] == "Deployment"))
    broken["spec"]["replicas"] = "two"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_clusters_have_a_gpu_group_and_processor_groups_that_scale(manifests):
    for spec in cluster_specs(manifests):
        assert spec["enableInTreeAutoscaling"] and spec["rayVersion"] == ray.__version__
        gpus = ["nvidia.com/gpu" in container_of(group)["resources"]["limits"] for group in groups(spec)]
        assert gpus[0] is False and sorted(gpus[1:]) == [False, True]
        assert all(group["minReplicas"] < group["maxReplicas"] for group in spec["workerGroupSpecs"])
        # The head runs the cluster and nothing else.
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert spec["gcsFaultToleranceOptions"]["redisAddress"] and spec["authOptions"]["mode"] == "token"


def container_of(group):
    return group["template"]["spec"]["containers"][0]


def test_pods_are_probed_keep_their_checkpoints_and_run_as_nobody_special(manifests):
    for spec in cluster_specs(manifests):
        for group in groups(spec):
            container, pod = container_of(group), group["template"]["spec"]
            assert {"readinessProbe", "livenessProbe", "resources"} <= set(container)
            assert (
                pod["securityContext"]["runAsNonRoot"] and not container["securityContext"]["allowPrivilegeEscalation"]
            )
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == "oneiros-shared"
            assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]
            # Ray's object store is shared memory, of which a container has 64 MB by itself.
            assert volumes["shm"]["emptyDir"]["medium"] == "Memory"


def test_names_that_manifests_share_agree(manifests):
    names = {(one["kind"], one["metadata"]["name"]) for one in manifests.values()}
    assert ("PersistentVolumeClaim", "oneiros-shared") in names and ("Service", "oneiros-mlflow") in names
    for spec in cluster_specs(manifests):
        host = spec["gcsFaultToleranceOptions"]["redisAddress"].removeprefix("redis://").partition(":")[0]
        assert ("Service", host) in names
        environment = {one["name"]: one.get("value") for one in container_of(spec["headGroupSpec"])["env"]}
        assert environment["MLFLOW_TRACKING_URI"] == "http://oneiros-mlflow:5000"
    for one in manifests.values():
        if one["kind"] in ("Deployment", "StatefulSet"):
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_proxy_of_the_manifest_is_that_of_compose(manifests, deploy):
    (config,) = [one for one in manifests.values() if one["kind"] == "ConfigMap"]
    assert config["data"]["default.conf.template"] == (deploy / "mlflow/proxy.conf.template").read_text()
