{{/* Names, labels and small conversions. Everything that two templates must agree on is here. */}}

{{- define "teleworld.services" -}}
{{- list "gateway" "planner" "populator" "reconstructor" "decoder" | toJson -}}
{{- end }}

{{- define "teleworld.workers" -}}
{{- list "planner" "populator" "reconstructor" "decoder" | toJson -}}
{{- end }}

{{/* 40 characters at most, so that the longest suffix and a pod's hash fit into a DNS label. */}}
{{- define "teleworld.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Labels that select pods. Argument: (dict "root" $ "name" "planner"). */}}
{{- define "teleworld.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{/* What tells a worker's pods from those with other weights, beside the labels that both share. Argument as above, with "generation". */}}
{{- define "teleworld.generation" -}}
{{- if ne .name "gateway" -}}
teleworld/generation: {{ default "current" .generation }}
{{- end -}}
{{- end }}

{{/* The release as it was with the weights before: the root's values with those of model.previous, as JSON. */}}
{{- define "teleworld.previousValues" -}}
{{- $previous := .Values.model.previous -}}
{{- $values := deepCopy .Values -}}
{{- with $previous.tag }}{{ $_ := set $values.image "tag" . }}{{ end -}}
{{- $_ := set $values.model.weights "source" $previous.source -}}
{{- $_ := set $values.model.weights "pvc" (dict "existingClaim" $previous.existingClaim "subPath" $previous.subPath) -}}
{{- $_ := set $values.model.weights "image" (dict "reference" $previous.reference "pullPolicy" "IfNotPresent") -}}
{{- range $name := include "teleworld.workers" . | fromJsonArray -}}
{{- $_ := set (index $values $name) "replicas" $previous.replicas -}}
{{- $_ := set (index $values $name) "autoscaling" (dict "mode" "none") -}}
{{- end -}}
{{- toJson $values -}}
{{- end }}

{{/* Labels of every object. Argument as above. */}}
{{- define "teleworld.labels" -}}
{{ include "teleworld.selector" . }}
app.kubernetes.io/part-of: teleworld
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Name, namespace and labels of an object. Argument: (dict "root" $ "name" "planner"), optionally "suffix". */}}
{{- define "teleworld.metadata" -}}
name: {{ include "teleworld.fullname" .root }}-{{ .name }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "teleworld.labels" . | nindent 2 }}
{{- end }}

{{/* One map over another, map by map, as JSON: whatever is given wins, an empty map or text too. Argument: (dict "base" "over"). */}}
{{- define "teleworld.over" -}}
{{- $merged := deepCopy .base -}}
{{- range $key, $value := .over -}}
{{- $under := get $merged $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $under) (gt (len $value) 0) -}}
{{- $_ := set $merged $key (include "teleworld.over" (dict "base" $under "over" $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $merged -}}
{{- end }}

{{/* A service's values over the defaults, as JSON. Argument: (dict "root" $ "name" "planner"). */}}
{{- define "teleworld.service" -}}
{{- include "teleworld.over" (dict "base" .root.Values.defaults "over" (index .root.Values .name)) -}}
{{- end }}

{{- define "teleworld.serviceAccount" -}}
{{- $service := include "teleworld.service" . | fromJson -}}
{{- if $service.serviceAccount.name -}}
{{- $service.serviceAccount.name -}}
{{- else if $service.serviceAccount.create -}}
{{- printf "%s-%s" (include "teleworld.fullname" .root) .name -}}
{{- else -}}
default
{{- end -}}
{{- end }}

{{- define "teleworld.image" -}}
{{- $service := include "teleworld.service" . | fromJson -}}
{{- if $service.image -}}
{{- $service.image -}}
{{- else -}}
{{- $image := .root.Values.image -}}
{{- $variant := ternary "-cuda" "" (gt (int $service.gpu.count) 0) -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{- printf "%s/%s:%s%s" $image.repository .name (default .root.Chart.AppVersion $image.tag) $variant -}}
{{- end -}}
{{- end }}

{{/* A number as its digits: Helm reads numbers as floats and would write large ones with an exponent. */}}
{{- define "teleworld.scalar" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}

{{- define "teleworld.kind" -}}
{{- if and (eq .root.Values.discovery.mode "static") (ne .name "gateway") }}StatefulSet{{ else }}Deployment{{ end -}}
{{- end }}

{{/* Not empty for a service that talks to Redis: worlds, memory, and the planners' prompt embeddings. */}}
{{- define "teleworld.usesRedis" -}}
{{- if has .name (list "gateway" "planner" "reconstructor") }}yes{{ end -}}
{{- end }}

{{/* preStop + drain + margin: the kubelet must not kill what still drains. */}}
{{- define "teleworld.grace" -}}
{{- add .preStopSeconds .drainSeconds .graceMarginSeconds -}}
{{- end }}

{{- define "teleworld.tlsSecret" -}}
{{- $given := index .root.Values.tls.secrets .name -}}
{{- if and (eq .root.Values.tls.mode "secrets") $given }}{{ $given }}{{ else }}{{ include "teleworld.fullname" .root }}-{{ .name }}-tls{{ end -}}
{{- end }}

{{- define "teleworld.otlpEndpoint" -}}
{{- if .Values.telemetry.endpoint -}}
{{- .Values.telemetry.endpoint -}}
{{- else if .Values.telemetry.collector.enabled -}}
http://{{ include "teleworld.fullname" . }}-collector.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:4317
{{- end -}}
{{- end }}

{{/* What a container of ours may not do. The root file system is read-only unless the argument is false. */}}
{{- define "teleworld.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: {{ . }}
capabilities:
  drop: [ALL]
{{- end }}

{{- define "teleworld.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Label matchers that pick out this release's series. */}}
{{- define "teleworld.series" -}}
{{- default (printf "namespace=%q,release=%q" .Release.Namespace (include "teleworld.fullname" .)) .Values.monitoring.selector -}}
{{- end }}

{{/* The workers whose number the gateway owns, as JSON. */}}
{{- define "teleworld.sized" -}}
{{- $root := . -}}
{{- $sized := list -}}
{{- range $name := include "teleworld.workers" . | fromJsonArray -}}
{{- if eq (include "teleworld.service" (dict "root" $root "name" $name) | fromJson).autoscaling.mode "gateway" -}}
{{- $sized = append $sized $name -}}
{{- end -}}
{{- end -}}
{{- toJson $sized -}}
{{- end }}
