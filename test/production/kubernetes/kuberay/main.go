// Prints what KubeRay's operator makes of the RayCluster of a manifest, in JSON: the pods of the head and of the workers
// and the service of the head, by the operator's own functions and after its own checks. Nothing else of it is run.
//
//	go run . FILE
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	rayv1 "github.com/ray-project/kuberay/ray-operator/apis/ray/v1"
	"github.com/ray-project/kuberay/ray-operator/controllers/ray/common"
	"github.com/ray-project/kuberay/ray-operator/controllers/ray/utils"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

type objects struct {
	Head    corev1.Pod      `json:"head"`
	Workers []corev1.Pod    `json:"workers"`
	Service *corev1.Service `json:"service"`
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var kind struct {
			Kind string `json:"kind"`
		}
		if err := yaml.Unmarshal(document, &kind); err != nil {
			log.Fatal(err)
		}
		if kind.Kind != "RayCluster" {
			continue
		}
		var cluster rayv1.RayCluster
		if err := yaml.UnmarshalStrict(document, &cluster); err != nil {
			log.Fatal(err)
		}
		made, err := reconcile(context.Background(), cluster)
		if err != nil {
			log.Fatal(err)
		}
		text, err := json.Marshal(made)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(text))
		return
	}
	log.Fatal("there is no RayCluster in " + os.Args[1])
}

// As the operator's reconciler does it, which needs a cluster.
func reconcile(ctx context.Context, cluster rayv1.RayCluster) (*objects, error) {
	if err := utils.ValidateRayClusterMetadata(cluster.ObjectMeta); err != nil {
		return nil, err
	}
	if err := utils.ValidateRayClusterSpec(&cluster.Spec, cluster.Annotations); err != nil {
		return nil, err
	}
	service, err := common.BuildServiceForHeadPod(ctx, cluster, nil, nil)
	if err != nil {
		return nil, err
	}
	address := utils.GenerateFQDNServiceName(ctx, cluster, cluster.Namespace)
	head := &cluster.Spec.HeadGroupSpec
	port := common.GetHeadPort(head.RayStartParams)
	build := func(template corev1.PodTemplateSpec, kind rayv1.RayNodeType, params map[string]string) corev1.Pod {
		return common.BuildPod(
			ctx, template, kind, params, port, utils.IsAutoscalingEnabled(&cluster.Spec), utils.RayClusterCRD, address, nil,
			cluster.Spec.RayVersion,
		)
	}
	name := utils.PodName(cluster.Name, rayv1.HeadNode, true)
	made := &objects{Service: service}
	made.Head = build(common.DefaultHeadPodTemplate(ctx, cluster, *head, name, port), rayv1.HeadNode, head.RayStartParams)
	for _, group := range cluster.Spec.WorkerGroupSpecs {
		// The API server fills defaults of the definition in.
		if group.NumOfHosts == 0 {
			group.NumOfHosts = 1
		}
		name := utils.PodName(cluster.Name+"-"+group.GroupName, rayv1.WorkerNode, true)
		for index := range int(utils.GetWorkerGroupDesiredReplicas(group)) {
			worker := *group.DeepCopy()
			template := common.DefaultWorkerPodTemplate(ctx, cluster, worker, name, address, port, "", index, 0)
			made.Workers = append(made.Workers, build(template, rayv1.WorkerNode, worker.RayStartParams))
		}
	}
	return made, nil
}
