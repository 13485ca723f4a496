// Command kube-controller-manager runs the controllers of Kubernetes, such as those of StatefulSets and EndpointSlices.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	os.Exit(cli.Run(app.NewControllerManagerCommand()))
}
