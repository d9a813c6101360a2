"""KubeEdge's DeviceModel and Device documents, v1beta1 and v1alpha2, made into a profile."""
