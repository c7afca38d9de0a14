{{/* Combinations that the schema cannot refuse. Included once, by the workloads. */}}
{{- define "teleworld.checks" -}}
{{- $root := . -}}
{{- range $name := include "teleworld.services" . | fromJsonArray -}}
{{- $service := include "teleworld.service" (dict "root" $root "name" $name) | fromJson -}}
{{- $scaling := $service.autoscaling -}}
{{- if ne $scaling.mode "none" -}}
{{- if eq $name "gateway" -}}
{{- fail "gateway.autoscaling.mode: gateways are not scaled by the depth of a pool; set gateway.replicas" -}}
{{- end -}}
{{- if eq $root.Values.discovery.mode "static" -}}
{{- fail (printf "%s.autoscaling.mode: static discovery knows a fixed number of workers; use discovery.mode=kubernetes" $name) -}}
{{- end -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas: must not be above maxReplicas" $name) -}}
{{- end -}}
{{- $queue := dig "queue" 8 $service.settings -}}
{{- if ge (int $scaling.targetQueueDepth) (int $queue) -}}
{{- fail (printf "%s.autoscaling.targetQueueDepth: must stay below the worker's queue (%v), where tasks are refused" $name $queue) -}}
{{- end -}}
{{- end -}}
{{- if eq (int $service.port) (int $service.adminPort) -}}
{{- fail (printf "%s.adminPort: must differ from its port" $name) -}}
{{- end -}}
{{- if and (eq (int $service.rollingUpdate.maxSurge) 0) (eq (int $service.rollingUpdate.maxUnavailable) 0) -}}
{{- fail (printf "%s.rollingUpdate: maxSurge and maxUnavailable must not both be 0" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.discovery.zonePreference "PreferClose") (semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail "discovery.zonePreference: PreferClose needs Kubernetes 1.31 or newer; use Auto" -}}
{{- end -}}
{{- $previous := .Values.model.previous -}}
{{- if and $previous.enabled (eq .Values.discovery.mode "static") -}}
{{- fail "model.previous.enabled: static discovery knows one set of workers; use discovery.mode=kubernetes" -}}
{{- end -}}
{{- if and $previous.enabled (eq $previous.source "pvc") (not $previous.existingClaim) -}}
{{- fail "model.previous.existingClaim: is needed with source=pvc" -}}
{{- end -}}
{{- if and $previous.enabled (eq $previous.source "image") (not $previous.reference) -}}
{{- fail "model.previous.reference: is needed with source=image" -}}
{{- end -}}
{{- $weights := .Values.model.weights -}}
{{- if and (eq $weights.source "image") (not $weights.image.reference) -}}
{{- fail "model.weights.image.reference: is needed with source=image" -}}
{{- end -}}
{{- if and (eq $weights.source "image") (semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail "model.weights.source: image needs Kubernetes 1.33 or newer; use pvc or init" -}}
{{- end -}}
{{- if and (eq $weights.source "init") (not $weights.init.files) -}}
{{- fail "model.weights.init.files: is needed with source=init" -}}
{{- end -}}
{{- if and (has .Values.auth.mode (list "jwt" "both")) (not .Values.auth.jwt.issuer) -}}
{{- fail "auth.jwt.issuer: is needed with auth.mode=jwt" -}}
{{- end -}}
{{- if and (has .Values.auth.mode (list "jwt" "both")) (not (or .Values.auth.jwt.jwksUrl .Values.auth.jwt.jwksConfigMap)) -}}
{{- fail "auth.jwt.jwksUrl: or jwksConfigMap is needed with auth.mode=jwt" -}}
{{- end -}}
{{- if and (ne .Values.monitoring.monitor "none") (not .Values.telemetry.collector.enabled) -}}
{{- fail "monitoring.monitor: needs telemetry.collector.enabled, which serves the metrics" -}}
{{- end -}}
{{- end }}
