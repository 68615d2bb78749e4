"""`docs/rayjob.yaml`, as far as it can be checked without Kubernetes.

The fields are those of KubeRay's `ray.io/v1` that the manifest uses; a misspelt one, which the operator would
silently drop, is an error here. The rest is what no schema knows: nothing open, nothing idle, the pinned Ray.
"""

import shlex
from typing import Annotated, Any, Literal

import pytest
import ray
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pipelines.cli.app import _parameters_of
from pipelines.config import TrainConfig
from pipelines.config_files import load_section
from tests.support.paths import REPOSITORY
from tune.cli import app


def strict(name: str, /, **fields: Any) -> type[BaseModel]:
    """A kind of object that has these fields and no others; a pair is a type and a default."""
    kinds = {key: kind if isinstance(kind, tuple) else (kind, ...) for key, kind in fields.items()}
    return create_model(name, __config__=ConfigDict(extra="forbid", strict=True), **kinds)


Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)]
Metadata = strict("Metadata", name=Name)
Resources = strict("Resources", requests=dict[str, str], limits=dict[str, str])
Mount = strict("Mount", name=str, mountPath=str)
Container = strict("Container", name=str, image=str, resources=Resources, volumeMounts=(list[Mount], []))
EmptyDirectory = strict("EmptyDirectory", medium=Literal["Memory"], sizeLimit=str)
Volume = strict("Volume", name=str, emptyDir=EmptyDirectory)
Effect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
Toleration = strict("Toleration", key=str, operator=Literal["Exists", "Equal"], effect=Effect)
Containers = Annotated[list[Container], Field(min_length=1)]
Chosen = {"nodeSelector": (dict[str, str], {}), "tolerations": (list[Toleration], [])}
# No `hostNetwork`, and no service account but the one that may reach the bucket.
PodSpec = strict(
    "PodSpec", serviceAccountName=str, containers=Containers, volumes=(list[Volume], []), **Chosen
)
PodTemplate = strict("PodTemplate", spec=PodSpec)
# No `serviceType`: it is ClusterIP where none is given, and others are reachable from outside.
HeadGroup = strict("HeadGroup", rayStartParams=dict[str, str], template=PodTemplate)
Replicas = {"replicas": int, "minReplicas": int, "maxReplicas": int}
Group = {"rayStartParams": dict[str, str], "template": PodTemplate}
WorkerGroup = strict("WorkerGroup", groupName=str, **Replicas, **Group)
AuthOptions = strict("AuthOptions", mode=Literal["token"])
AutoscalerOptions = strict("AutoscalerOptions", version=Literal["v1", "v2"], idleTimeoutSeconds=int)
Groups = {"headGroupSpec": HeadGroup, "workerGroupSpecs": list[WorkerGroup]}
Scaling = {"enableInTreeAutoscaling": bool, "autoscalerOptions": AutoscalerOptions}
RayClusterSpec = strict("RayClusterSpec", rayVersion=str, authOptions=AuthOptions, **Scaling, **Groups)
Mode = Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
Command = {"entrypoint": str, "runtimeEnvYAML": str, "submissionMode": Mode, "backoffLimit": Count}
End = {"shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": Count}
RayJobSpec = strict("RayJobSpec", **Command, **End, rayClusterSpec=RayClusterSpec)
RayJob = strict(
    "RayJob", apiVersion=Literal["ray.io/v1"], kind=Literal["RayJob"], metadata=Metadata, spec=RayJobSpec
)


@pytest.fixture
def content() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "docs" / "rayjob.yaml").read_text())
    return loaded


@pytest.fixture
def cluster(content: dict[str, Any]) -> Any:
    return RayJob.model_validate(content).spec.rayClusterSpec


@pytest.mark.parametrize(("path", "key", "value"), [
    (["spec"], "shutdownAfterJobFinish", True),
    (["spec", "rayClusterSpec"], "authOption", {"mode": "token"}),
    (["spec", "rayClusterSpec", "headGroupSpec"], "serviceType", "LoadBalancer"),
    (["spec", "rayClusterSpec", "headGroupSpec", "template", "spec"], "hostNetwork", True),
    (["spec", "rayClusterSpec", "authOptions"], "mode", "disabled"),
    (["spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"], "num-cpus", 0),
])  # fmt: skip
def test_the_schema_refuses(content, path, key, value):
    RayJob.model_validate(content)
    place = content
    for name in path:
        place = place[name]
    place[key] = value
    with pytest.raises(ValidationError):
        RayJob.model_validate(content)


def test_every_pod_has_the_pinned_ray_and_one_python(cluster):
    assert cluster.rayVersion == ray.__version__
    launcher = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    tag = launcher["docker"]["image"].partition(":")[2]
    assert tag.startswith(f"{ray.__version__}-py")
    images = {container.image for pod in pods(cluster) for container in pod.containers}
    assert {image.partition(":")[2] for image in images} == {tag}
    assert f"-t FILL-IN/dpt:{tag} ." in (REPOSITORY / "docs" / "rayjob.yaml").read_text()
    assert f"ARG RAY={tag.rpartition('-')[0]}\n" in (REPOSITORY / "Dockerfile").read_text()


def test_nothing_runs_while_there_is_nothing_to_do(content, cluster):
    job = RayJob.model_validate(content).spec
    assert job.shutdownAfterJobFinishes
    assert cluster.enableInTreeAutoscaling
    assert cluster.autoscalerOptions.idleTimeoutSeconds <= 900
    assert [(group.replicas, group.minReplicas) for group in cluster.workerGroupSpecs] == [(0, 0), (0, 0)]
    assert all(group.maxReplicas > 0 for group in cluster.workerGroupSpecs)
    assert cluster.headGroupSpec.rayStartParams["num-cpus"] == "0"


def test_cpu_work_is_on_spot_and_training_has_gpus(cluster):
    cpu, gpu = cluster.workerGroupSpecs
    assert cpu.template.spec.nodeSelector["karpenter.sh/capacity-type"] == "spot"
    assert "nvidia.com/gpu" not in cpu.template.spec.containers[0].resources.limits
    (container,) = gpu.template.spec.containers
    # Kubernetes takes a GPU's limit for its request and refuses a pair that differs.
    assert container.resources.limits["nvidia.com/gpu"] == container.resources.requests["nvidia.com/gpu"]
    mounted = {mount.name for mount in container.volumeMounts if mount.mountPath == "/dev/shm"}
    assert mounted == {volume.name for volume in gpu.template.spec.volumes}


def test_permissions_come_from_the_service_account_only(cluster):
    assert {pod.serviceAccountName for pod in pods(cluster)} == {"dpt"}
    assert "AKIA" not in (REPOSITORY / "docs" / "rayjob.yaml").read_text()


def test_a_retry_goes_on_with_the_run(content, cluster):
    job = RayJob.model_validate(content).spec
    program, *command = shlex.split(job.entrypoint)
    assert program == "dpt"
    assert "train" in {entry.name or entry.callback.__name__ for entry in app.registered_commands}
    parameters = _parameters_of(command)
    assert parameters["resume"]
    assert job.backoffLimit > 0
    assert all(uri.startswith("s3://") for uri in (*parameters["data"], parameters["storage"]))
    settings = load_section("train", TrainConfig, parameters["config"], parameters["overrides"])
    gpus = [g.template.spec.containers[0].resources.limits for g in cluster.workerGroupSpecs]
    offered = sum(
        int(limits.get("nvidia.com/gpu", 0)) * group.maxReplicas
        for limits, group in zip(gpus, cluster.workerGroupSpecs, strict=True)
    )
    assert (settings.device, settings.workers) == ("cuda", offered)
    assert "MLFLOW_TRACKING_URI" in yaml.safe_load(job.runtimeEnvYAML)["env_vars"]


def pods(cluster: Any) -> list[Any]:
    return [cluster.headGroupSpec.template.spec, *(group.template.spec for group in cluster.workerGroupSpecs)]
