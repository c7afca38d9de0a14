{{/* The pod of a service. Argument: (dict "root" $ "name" "planner"). */}}

{{- define "teleworld.probe" -}}
grpc:
  port: {{ .port }}
  {{- with .service }}
  service: {{ . }}
  {{- end }}
periodSeconds: {{ .period }}
timeoutSeconds: 3
failureThreshold: {{ .failures }}
{{- end }}

{{/* A sleep before SIGTERM: by the kubelet where it can (1.30), else by the image's own interpreter. */}}
{{- define "teleworld.preStop" -}}
{{- if semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version -}}
sleep:
  seconds: {{ .seconds }}
{{- else -}}
exec:
  command: [python, -c, import time; time.sleep({{ .seconds }})]
{{- end -}}
{{- end }}

{{- define "teleworld.weightsVolume" -}}
{{- $weights := .root.Values.model.weights -}}
{{- if or (eq $weights.source "pvc") (and (eq $weights.source "init") $weights.init.claim) -}}
- name: weights
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-weights" (include "teleworld.fullname" .root)) $weights.pvc.existingClaim }}
    {{- if eq $weights.source "pvc" }}
    readOnly: true
    {{- end }}
{{- else if eq $weights.source "image" -}}
- name: weights
  image:
    reference: {{ $weights.image.reference }}
    pullPolicy: {{ $weights.image.pullPolicy }}
{{- else if eq $weights.source "init" -}}
- name: weights
  emptyDir:
    sizeLimit: {{ $weights.init.size }}
{{- end }}
{{- if eq $weights.source "init" }}
- name: weights-list
  configMap:
    name: {{ include "teleworld.fullname" .root }}-weights
{{- end }}
{{- end }}

{{- define "teleworld.volumes" -}}
{{- $service := include "teleworld.service" . | fromJson -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ $service.tmpSize }}
- name: cache
  emptyDir:
    sizeLimit: {{ $service.cacheSize }}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ $service.shmSize }}
{{- if ne .root.Values.tls.mode "insecure" }}
- name: tls
  secret:
    secretName: {{ include "teleworld.tlsSecret" . }}
    defaultMode: 288
{{- end }}
{{- if eq .name "gateway" }}
{{- if has .root.Values.auth.mode (list "apiKeys" "both") }}
- name: api-keys
  secret:
    secretName: {{ .root.Values.auth.apiKeys.existingSecret }}
    defaultMode: 288
{{- end }}
{{- if and (has .root.Values.auth.mode (list "jwt" "both")) (not .root.Values.auth.jwt.jwksUrl) }}
- name: jwks
  configMap:
    name: {{ .root.Values.auth.jwt.jwksConfigMap }}
{{- end }}
{{- else }}
{{- with include "teleworld.weightsVolume" . }}
{{ . | trim }}
{{- end }}
{{- end }}
{{- if include "teleworld.redisAuthority" . }}
- name: redis
  secret:
    secretName: {{ .root.Values.redis.external.caSecret }}
    defaultMode: 288
{{- end }}
{{- with $service.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Not empty for a service that checks Redis's certificate by an authority of ours. */}}
{{- define "teleworld.redisAuthority" -}}
{{- $redis := .root.Values.redis -}}
{{- if and (include "teleworld.usesRedis" .) (eq $redis.mode "external") $redis.external.caSecret }}yes{{ end -}}
{{- end }}

{{/* Secrets are mounted as folders, never by subPath: only so do renewed files appear without a restart. */}}
{{- define "teleworld.mounts" -}}
{{- $service := include "teleworld.service" . | fromJson -}}
- name: tmp
  mountPath: /tmp
- name: cache
  mountPath: /var/cache/teleworld
- name: shm
  mountPath: /dev/shm
{{- if ne .root.Values.tls.mode "insecure" }}
- name: tls
  mountPath: /etc/teleworld/tls
  readOnly: true
{{- end }}
{{- if eq .name "gateway" }}
{{- if has .root.Values.auth.mode (list "apiKeys" "both") }}
- name: api-keys
  mountPath: /etc/teleworld/api-keys
  readOnly: true
{{- end }}
{{- if and (has .root.Values.auth.mode (list "jwt" "both")) (not .root.Values.auth.jwt.jwksUrl) }}
- name: jwks
  mountPath: /etc/teleworld/jwks
  readOnly: true
{{- end }}
{{- else if ne .root.Values.model.weights.source "builtin" }}
- name: weights
  mountPath: {{ .root.Values.model.weights.path }}
  readOnly: true
  {{- if and (eq .root.Values.model.weights.source "pvc") .root.Values.model.weights.pvc.subPath }}
  subPath: {{ .root.Values.model.weights.pvc.subPath }}
  {{- end }}
{{- end }}
{{- if include "teleworld.redisAuthority" . }}
- name: redis
  mountPath: /etc/teleworld/redis
  readOnly: true
{{- end }}
{{- with $service.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Fetches and checks weights before the worker starts. */}}
{{- define "teleworld.weightsInit" -}}
- name: weights
  image: {{ include "teleworld.image" . }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [python, /etc/teleworld/weights/fetch_weights.py, /etc/teleworld/weights/files.json, {{ .root.Values.model.weights.path }}]
  securityContext:
    {{- include "teleworld.containerSecurity" true | nindent 4 }}
  resources:
    {{- toYaml .root.Values.model.weights.init.resources | nindent 4 }}
  volumeMounts:
    - name: weights
      mountPath: {{ .root.Values.model.weights.path }}
    - name: weights-list
      mountPath: /etc/teleworld/weights
      readOnly: true
    - name: tmp
      mountPath: /tmp
{{- end }}

{{- define "teleworld.spread" -}}
{{- $service := include "teleworld.service" . | fromJson -}}
{{- range $key, $when := dict "topology.kubernetes.io/zone" $service.topologySpread.zones "kubernetes.io/hostname" $service.topologySpread.nodes }}
{{- if $when }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: {{ $when }}
  labelSelector:
    matchLabels:
      {{- include "teleworld.selector" $ | nindent 6 }}
  {{- if eq (include "teleworld.kind" $) "Deployment" }}
  matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "teleworld.affinity" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "teleworld.selector" . | nindent 12 }}
{{- end }}

{{- define "teleworld.pod" -}}
{{- $values := .root.Values -}}
{{- $service := include "teleworld.service" . | fromJson -}}
{{- $gpus := int $service.gpu.count -}}
{{- $resources := deepCopy $service.resources -}}
{{- if gt $gpus 0 -}}
{{- $resources = mergeOverwrite $resources (dict "limits" (dict $service.gpu.resource $gpus) "requests" (dict $service.gpu.resource $gpus)) -}}
{{- end -}}
metadata:
  labels:
    {{- include "teleworld.labels" . | nindent 4 }}
    {{- with include "teleworld.generation" . }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $service.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .name }}
    {{- if and (ne .name "gateway") (eq $values.model.weights.source "init") }}
    checksum/weights: {{ toJson $values.model.weights.init.files | sha256sum }}
    {{- end }}
    {{- with $service.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "teleworld.serviceAccount" . }}
  automountServiceAccountToken: {{ and (eq .name "gateway") (eq $values.discovery.mode "kubernetes") }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "teleworld.grace" $service }}
  {{- if $service.priorityClassName }}
  priorityClassName: {{ $service.priorityClassName }}
  {{- else if $values.priorityClass.create }}
  priorityClassName: {{ include "teleworld.fullname" .root }}
  {{- end }}
  {{- with $service.gpu.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    {{- include "teleworld.podSecurity" . | nindent 4 }}
  {{- with $service.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or $service.tolerations (gt $gpus 0) }}
  tolerations:
    {{- if gt $gpus 0 }}
    - key: {{ $service.gpu.resource }}
      operator: Exists
      effect: NoSchedule
    {{- end }}
    {{- with $service.tolerations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  affinity:
    {{- if $service.affinity }}
    {{- toYaml $service.affinity | nindent 4 }}
    {{- else }}
    {{- include "teleworld.affinity" . | nindent 4 }}
    {{- end }}
  {{- with include "teleworld.spread" . }}
  topologySpreadConstraints:
    {{- . | nindent 4 }}
  {{- end }}
  {{- if and (ne .name "gateway") (eq $values.model.weights.source "init") }}
  initContainers:
    {{- include "teleworld.weightsInit" . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "teleworld.image" . }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: [services.{{ .name }}]
      securityContext:
        {{- include "teleworld.containerSecurity" $service.readOnlyRootFilesystem | nindent 8 }}
      ports:
        - name: grpc
          containerPort: {{ $service.port }}
        - name: admin
          containerPort: {{ $service.adminPort }}
        {{- if eq .name "gateway" }}
        - name: scaler
          containerPort: {{ $service.scalerPort }}
        {{- end }}
      env:
        {{- include "teleworld.environment" . | nindent 8 }}
      resources:
        {{- toYaml $resources | nindent 8 }}
      # A worker has started when it serves. A gateway serves only while every pool does, and is not restarted for them.
      startupProbe:
        {{- include "teleworld.probe" (dict "port" $service.adminPort "service" (ternary "liveness" "" (eq .name "gateway")) "period" 2 "failures" (div (add $service.startupSeconds 1) 2)) | nindent 8 }}
      readinessProbe:
        {{- include "teleworld.probe" (dict "port" $service.adminPort "period" 5 "failures" 2) | nindent 8 }}
      livenessProbe:
        {{- include "teleworld.probe" (dict "port" $service.adminPort "service" "liveness" "period" 10 "failures" 6) | nindent 8 }}
      lifecycle:
        preStop:
          {{- include "teleworld.preStop" (dict "root" .root "seconds" $service.preStopSeconds) | nindent 10 }}
      volumeMounts:
        {{- include "teleworld.mounts" . | nindent 8 }}
    {{- with $service.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "teleworld.volumes" . | nindent 4 }}
{{- end }}
