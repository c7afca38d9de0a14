{{/*
The environment of a service: the only place where the chart names settings. Workers read TELEWORLD_<FIELD>, the gateway
TELEWORLD_GATEWAY_<FIELD>; the fields are those of services/<name>/settings.py, and a test holds the chart to them.
*/}}

{{/* Fields with plain values, as JSON. Argument: (dict "root" $ "name" "planner"). */}}
{{- define "teleworld.fields" -}}
{{- $values := .root.Values -}}
{{- $service := include "teleworld.service" . | fromJson -}}
{{- $fullname := include "teleworld.fullname" .root -}}
{{- $domain := printf "%s.svc.%s" .root.Release.Namespace $values.clusterDomain -}}
{{- $fields := dict
      "host" "0.0.0.0"
      "port" $service.port
      "admin_port" $service.adminPort
      "drain_seconds" $service.drainSeconds
      "log_level" $values.telemetry.logLevel
-}}
{{- with include "teleworld.otlpEndpoint" .root }}{{ $_ := set $fields "otlp_endpoint" . }}{{ end -}}
{{- if or (eq $values.tls.mode "insecure") (and (eq .name "gateway") (eq $values.auth.mode "insecure")) -}}
{{- $_ := set $fields "insecure" true -}}
{{- end -}}
{{- if ne $values.tls.mode "insecure" -}}
{{- $_ := set $fields "tls_certificate" "/etc/teleworld/tls/tls.crt" -}}
{{- $_ := set $fields "tls_key" "/etc/teleworld/tls/tls.key" -}}
{{- $_ := set $fields "tls_authority" "/etc/teleworld/tls/ca.crt" -}}
{{- end -}}
{{- if eq .name "gateway" -}}
{{- $_ := set $fields "discovery" $values.discovery.mode -}}
{{- $_ := set $fields "weights_digest" $values.model.weights.digest -}}
{{- $_ := set $fields "scaler_port" $service.scalerPort -}}
{{- $_ := set $fields "lease_name" (printf "%s-gateway" $fullname) -}}
{{- $root := .root -}}
{{- range $worker := include "teleworld.workers" .root | fromJsonArray -}}
{{- $pool := include "teleworld.service" (dict "root" $root "name" $worker) | fromJson -}}
{{- $headless := printf "%s-%s.%s" $fullname $worker $domain -}}
{{- if eq $values.discovery.mode "static" -}}
{{- $addresses := list -}}
{{- range $index := until (int $pool.replicas) -}}
{{- $addresses = append $addresses (printf "%s-%s-%d.%s:%d" $fullname $worker $index $headless (int $pool.port)) -}}
{{- end -}}
{{- $_ := set $fields (printf "%s_addresses" $worker) (join "," $addresses) -}}
{{- else -}}
{{- $_ := set $fields (printf "%s_addresses" $worker) (printf "%s:%d" $headless (int $pool.port)) -}}
{{- end -}}
{{- end -}}
{{- $sizes := list -}}
{{- range $worker := include "teleworld.sized" .root | fromJsonArray -}}
{{- $scaling := (include "teleworld.service" (dict "root" $root "name" $worker) | fromJson).autoscaling -}}
{{- $bounds := printf "%d:%d:%d:%d" (int $scaling.minReplicas) (int $scaling.maxReplicas) (int $scaling.targetQueueDepth) (int $scaling.scaleDownStabilizationSeconds) -}}
{{- $sizes = append $sizes (printf "%s=%s-%s:%s" $worker $fullname $worker $bounds) -}}
{{- end -}}
{{- with $sizes }}{{ $_ := set $fields "scale" (join "," .) }}{{ end -}}
{{- if has $values.auth.mode (list "apiKeys" "both") -}}
{{- $_ := set $fields "api_keys_file" (printf "/etc/teleworld/api-keys/%s" $values.auth.apiKeys.key) -}}
{{- $_ := set $fields "stored_api_keys" $values.auth.apiKeys.stored -}}
{{- end -}}
{{- if has $values.auth.mode (list "jwt" "both") -}}
{{- $_ := set $fields "issuer" $values.auth.jwt.issuer -}}
{{- $_ := set $fields "audience" $values.auth.jwt.audience -}}
{{- $_ := set $fields "tenant_claim" $values.auth.jwt.tenantClaim -}}
{{- $_ := set $fields "jwks" (default (printf "/etc/teleworld/jwks/%s" $values.auth.jwt.jwksKey) $values.auth.jwt.jwksUrl) -}}
{{- end -}}
{{- else -}}
{{- $_ := set $fields "model" $values.model.name -}}
{{- $_ := set $fields "threads" $values.model.threads -}}
{{- $_ := set $fields "device" (ternary "cuda" "cpu" (gt (int $service.gpu.count) 0)) -}}
{{- $_ := set $fields "precision" $values.model.precision -}}
{{- $_ := set $fields "compile" $values.model.compile -}}
{{- if ne $values.model.weights.source "builtin" -}}
{{- $_ := set $fields "checkpoint" $values.model.weights.path -}}
{{- end -}}
{{- if eq .name "reconstructor" -}}
{{- /* A memory must outlive its world: a day more. */ -}}
{{- $gateway := include "teleworld.service" (dict "root" .root "name" "gateway") | fromJson -}}
{{- if hasKey $gateway.settings "world_ttl_seconds" -}}
{{- $_ := set $fields "memory_ttl_seconds" (add (int $gateway.settings.world_ttl_seconds) 86400) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite $fields (deepCopy $service.settings) | toJson -}}
{{- end }}

{{/* The URL of Redis as environment variables; `prefix` is the service's. */}}
{{- define "teleworld.redisEnvironment" -}}
{{- $redis := .root.Values.redis -}}
{{- if eq $redis.mode "development" -}}
- name: {{ .prefix }}REDIS_URL
  value: redis://{{ include "teleworld.fullname" .root }}-redis:6379/0
{{- else if $redis.external.existingSecret -}}
- name: {{ .prefix }}REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ $redis.external.existingSecret }}
      key: {{ $redis.external.urlKey }}
{{- else -}}
{{- $external := $redis.external -}}
{{- $user := "" -}}
{{- if $external.passwordSecret }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $external.passwordSecret }}
      key: {{ $external.passwordKey }}
{{- $user = printf "%s:$(REDIS_PASSWORD)@" $external.username -}}
{{- else if $external.username -}}
{{- $user = printf "%s@" $external.username -}}
{{- end }}
- name: {{ .prefix }}REDIS_URL
  value: {{ printf "%s://%s%s:%d/%d%s" (ternary "rediss" "redis" $external.tls) $user $external.host (int $external.port) (int $external.database) (ternary "?ssl_ca_certs=/etc/teleworld/redis/ca.crt" "" (and $external.tls (ne $external.caSecret ""))) | quote }}
{{- end }}
{{- end }}

{{- define "teleworld.environment" -}}
{{- $service := include "teleworld.service" . | fromJson -}}
{{- $prefix := ternary "TELEWORLD_GATEWAY_" "TELEWORLD_" (eq .name "gateway") -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: HOME
  value: /tmp
- name: NUMBA_CACHE_DIR
  value: /var/cache/teleworld
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME)
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .root.Values.telemetry.sampling | quote }}
- name: OTEL_METRICS_EXEMPLAR_FILTER
  value: trace_based
- name: OTEL_METRIC_EXPORT_INTERVAL
  value: {{ mul .root.Values.telemetry.metricsSeconds 1000 | quote }}
{{- if include "teleworld.usesRedis" . }}
{{ include "teleworld.redisEnvironment" (dict "root" .root "prefix" $prefix) | trim }}
{{- end }}
{{- if eq .name "gateway" }}
- name: {{ $prefix }}ZONE
  {{- if .root.Values.discovery.zone }}
  value: {{ .root.Values.discovery.zone | quote }}
  {{- else }}
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['topology.kubernetes.io/zone']
  {{- end }}
{{- end }}
{{- range $field, $value := include "teleworld.fields" . | fromJson }}
- name: {{ $prefix }}{{ upper $field }}
  value: {{ include "teleworld.scalar" $value | quote }}
{{- end }}
{{- with $service.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
